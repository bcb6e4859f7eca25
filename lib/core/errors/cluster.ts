export const clusterErrors = {};
