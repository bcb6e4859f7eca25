/** Tensors of a run with several tasks that belong to one of them alone. No weight of a model has a name with a slash. */
const folder = "tasks";

/** Where the tensors of a task's own head are among those of a run, and where its model is in a result. */
export const taskPrefix = (task: string): string => `${folder}/${task}/`;

/** Whether a tensor is of a task's own head. */
export const isOfTaskHead = (tensor: string): boolean => tensor.startsWith(`${folder}/`);

/** The folder of a result that has the models of its tasks. */
export const tasksFolder = folder;
