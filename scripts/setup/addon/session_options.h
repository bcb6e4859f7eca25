// Included before the tfjs-node addon's sources: sessions run the graph as Lockstep wrote it.
//
// Two reasons to switch TensorFlow's graph optimiser (grappler) off. It may turn an AddN of large
// tensors into an accumulation in the order of arrival, which changes the last bit from run to run.
// And it takes 3 s for the training program of a 135M model without making it faster.

#ifndef LOCKSTEP_SESSION_OPTIONS_H_
#define LOCKSTEP_SESSION_OPTIONS_H_

#include "tensorflow/c/c_api.h"

static inline TF_SessionOptions *LockstepNewSessionOptions() {
  // ConfigProto { graph_options { rewrite_options { disable_meta_optimizer: true } } }
  static const unsigned char config[] = {0x52, 0x05, 0x52, 0x03, 0x98, 0x01, 0x01};
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Status *status = TF_NewStatus();
  TF_SetConfig(options, config, sizeof(config), status);
  TF_DeleteStatus(status);
  return options;
}

#define TF_NewSessionOptions LockstepNewSessionOptions

#endif  // LOCKSTEP_SESSION_OPTIONS_H_
