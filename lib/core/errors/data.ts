export const dataErrors = {};
