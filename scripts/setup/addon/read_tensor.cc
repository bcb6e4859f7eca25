// The tfjs-node addon's interface to JavaScript with one more function, readTensor.
//
// Its own tensorDataSync makes a fresh array, which the system fills with zeros page by page before the
// copy: for 250 MB of gradients that is most of the time. readTensor copies into memory that exists,
// which may be shared between threads.

#include <node_api.h>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/eager/c_api.h"

// The table of tensors is a private member without an accessor. All that the header includes stands above.
#define private public
#include "binding/tfjs_backend.h"
#undef private

// This file registers the module instead.
#undef NAPI_MODULE
#define NAPI_MODULE(name, initialize)
#include "binding/tfjs_binding.cc"

#include "binding/tf_auto_tensor.h"

namespace tfnodejs {

static bool SameType(napi_typedarray_type array_type, TF_DataType tensor_type) {
  switch (array_type) {
    case napi_float32_array:
      return tensor_type == TF_FLOAT;
    case napi_int32_array:
      return tensor_type == TF_INT32;
    case napi_uint8_array:
      return tensor_type == TF_BOOL || tensor_type == TF_UINT8;
    default:
      return false;
  }
}

// readTensor(id, array): the tensor's elements into a typed array of the same type and size.
static napi_value ReadTensor(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value args[2];
  ENSURE_NAPI_OK_RETVAL(env, napi_get_cb_info(env, info, &argc, args, nullptr, nullptr), nullptr);
  bool is_typed_array = false;
  if (argc == 2) napi_is_typedarray(env, args[1], &is_typed_array);
  if (!is_typed_array) {
    NAPI_THROW_ERROR(env, "readTensor takes a tensor's id and a typed array");
    return nullptr;
  }
  int32_t id;
  ENSURE_NAPI_OK_RETVAL(env, napi_get_value_int32(env, args[0], &id), nullptr);
  TFJSBackend *const backend = GetTFJSBackend(env);
  if (!backend) return nullptr;
  auto entry = backend->tfe_handle_map_.find(id);
  if (entry == backend->tfe_handle_map_.end()) {
    NAPI_THROW_ERROR(env, "readTensor: no tensor has the id %d", id);
    return nullptr;
  }

  napi_typedarray_type array_type;
  size_t length;
  void *data;
  ENSURE_NAPI_OK_RETVAL(
      env, napi_get_typedarray_info(env, args[1], &array_type, &length, &data, nullptr, nullptr),
      nullptr);
  TF_AutoStatus tf_status;
  TF_AutoTensor tensor(TFE_TensorHandleResolve(entry->second, tf_status.status));
  ENSURE_TF_OK_RETVAL(env, tf_status, nullptr);
  const TF_DataType tensor_type = TF_TensorType(tensor.tensor);
  const size_t num_bytes = TF_TensorByteSize(tensor.tensor);
  if (!SameType(array_type, tensor_type) || length * TF_DataTypeSize(tensor_type) != num_bytes) {
    NAPI_THROW_ERROR(env, "readTensor: %zu bytes of type %d do not fit an array of %zu elements",
                     num_bytes, static_cast<int>(tensor_type), length);
    return nullptr;
  }
  if (num_bytes > 0) memcpy(data, TF_TensorData(tensor.tensor), num_bytes);
  return nullptr;
}

static napi_value InitLockstepBinding(napi_env env, napi_value exports) {
  exports = InitTFNodeJSBinding(env, exports);
  if (exports == nullptr) return nullptr;
  napi_property_descriptor property = {"readTensor", nullptr, ReadTensor,   nullptr,
                                       nullptr,      nullptr, napi_default, nullptr};
  ENSURE_NAPI_OK_RETVAL(env, napi_define_properties(env, exports, 1, &property), nullptr);
  return exports;
}

}  // namespace tfnodejs

NAPI_MODULE_INIT() { return tfnodejs::InitLockstepBinding(env, exports); }
