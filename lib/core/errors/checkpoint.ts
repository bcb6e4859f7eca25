export const checkpointErrors = {};
