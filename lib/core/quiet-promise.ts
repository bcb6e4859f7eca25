/**
 * A promise that may fail without anybody waiting for it, and whatever is made of it by `then`: for a library that
 * starts several things, fails in one, and leaves the others.
 */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  const then = promise.then.bind(promise);
  void then(undefined, () => {});
  return Object.assign(promise, {
    // oxlint-disable-next-line unicorn/no-thenable
    then: ((onValue, onError) => quiet(then(onValue, onError))) as Promise<T>["then"],
  });
}
