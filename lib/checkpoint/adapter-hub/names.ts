/** The name that adapters trained here have in AdapterHub's library. */
export const bottleneckName = "lockstep";

/** What the names of an adapter's weights begin with. @param place its module, with * for the layer's number */
export const bottleneckPrefix = (place: string, layer: number, name: string): string =>
  `${place.replace("*", String(layer))}.adapters.${name}`;
