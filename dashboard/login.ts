// A token behind the # is sent to nobody, but stays in the browser's history.
if (new URLSearchParams(location.hash.slice(1)).has("token")) {
  history.replaceState(null, "", location.pathname);
  const told = document.getElementById("link-token");
  if (told !== null) told.hidden = false;
}

export {};
