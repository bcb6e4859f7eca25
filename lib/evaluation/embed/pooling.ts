/** How the hidden states of a text become one vector. */
export type Pooling = "mean" | "cls";
