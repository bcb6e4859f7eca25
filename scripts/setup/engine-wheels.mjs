// Which wheels hold the engine, per flavour and platform, each with its SHA-256 from the package index.
//
// The native libraries of TensorFlow are the same whatever Python a wheel is for, so one wheel per
// platform is enough and the local Python only has to run pip.

export const TENSORFLOW_VERSION = "2.21.0";

/** The libraries, and of 268 MB of headers the C interface alone. */
const TENSORFLOW_MEMBERS = [
  "tensorflow/libtensorflow_cc.so.2",
  "tensorflow/libtensorflow_framework.so.2",
  "tensorflow/THIRD_PARTY_NOTICES.txt",
  "tensorflow/include/tensorflow/c/",
  "tensorflow/include/tensorflow/core/platform/ctstring",
  "tensorflow/include/tsl/platform/ctstring",
  "tensorflow/include/xla/c/",
  "tensorflow/include/xla/tsl/c/",
];

/** What `tensorflow[and-cuda]` names. libtensorflow's RUNPATH looks for them in ../nvidia. */
const CUDA_WHEELS_X64 = [
  {
    requirement: "nvidia-cublas-cu12==12.9.3.13",
    file: "nvidia_cublas_cu12-12.9.3.13-py3-none-manylinux_2_27_x86_64.whl",
    sha256: "d7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72",
    bytes: 581_217_458,
    members: ["nvidia/cublas/lib/"],
  },
  {
    requirement: "nvidia-cuda-cupti-cu12==12.8.90",
    file: "nvidia_cuda_cupti_cu12-12.8.90-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256: "ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182",
    bytes: 10_248_621,
    members: ["nvidia/cuda_cupti/lib/"],
  },
  {
    requirement: "nvidia-cuda-nvcc-cu12==12.9.86",
    file: "nvidia_cuda_nvcc_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
    sha256: "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0",
    bytes: 40_546_229,
    members: ["nvidia/cuda_nvcc/bin/", "nvidia/cuda_nvcc/nvvm/libdevice/"],
  },
  {
    requirement: "nvidia-cuda-nvrtc-cu12==12.9.86",
    file: "nvidia_cuda_nvrtc_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
    sha256: "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
    bytes: 89_568_129,
    members: ["nvidia/cuda_nvrtc/lib/"],
  },
  {
    requirement: "nvidia-cuda-runtime-cu12==12.9.79",
    file: "nvidia_cuda_runtime_cu12-12.9.79-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256: "25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3",
    bytes: 3_493_179,
    members: ["nvidia/cuda_runtime/lib/"],
  },
  {
    requirement: "nvidia-cudnn-cu12==9.28.0.42",
    file: "nvidia_cudnn_cu12-9.28.0.42-py3-none-manylinux_2_27_x86_64.whl",
    sha256: "9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375",
    bytes: 716_538_495,
    members: ["nvidia/cudnn/lib/"],
  },
  {
    requirement: "nvidia-cufft-cu12==11.4.1.4",
    file: "nvidia_cufft_cu12-11.4.1.4-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256: "c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28",
    bytes: 200_877_592,
    members: ["nvidia/cufft/lib/"],
  },
  {
    requirement: "nvidia-curand-cu12==10.3.10.19",
    file: "nvidia_curand_cu12-10.3.10.19-py3-none-manylinux_2_27_x86_64.whl",
    sha256: "49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e",
    bytes: 68_295_626,
    members: ["nvidia/curand/lib/"],
  },
  {
    requirement: "nvidia-cusolver-cu12==11.7.5.82",
    file: "nvidia_cusolver_cu12-11.7.5.82-py3-none-manylinux_2_27_x86_64.whl",
    sha256: "15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88",
    bytes: 338_117_415,
    members: ["nvidia/cusolver/lib/"],
  },
  {
    requirement: "nvidia-cusparse-cu12==12.5.10.65",
    file: "nvidia_cusparse_cu12-12.5.10.65-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256: "73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78",
    bytes: 366_465_088,
    members: ["nvidia/cusparse/lib/"],
  },
  {
    requirement: "nvidia-nccl-cu12==2.32.3",
    file: "nvidia_nccl_cu12-2.32.3-py3-none-manylinux_2_27_x86_64.whl",
    sha256: "bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c",
    bytes: 351_526_311,
    members: ["nvidia/nccl/lib/"],
  },
  {
    requirement: "nvidia-nvjitlink-cu12==12.9.86",
    file: "nvidia_nvjitlink_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
    sha256: "e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9",
    bytes: 39_748_338,
    members: ["nvidia/nvjitlink/lib/"],
  },
];

/**
 * Wheels by flavour, then by `process.platform-process.arch`.
 *
 * @type {Record<"cpu" | "cuda", Record<string, import("./wheels.mjs").Wheel[]>>}
 */
export const ENGINE_WHEELS = {
  cpu: {
    "linux-x64": [
      {
        requirement: `tensorflow-cpu==${TENSORFLOW_VERSION}`,
        file: "tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl",
        sha256: "2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c",
        bytes: 273_829_956,
        members: TENSORFLOW_MEMBERS,
      },
    ],
    "linux-arm64": [
      {
        requirement: `tensorflow==${TENSORFLOW_VERSION}`,
        file: "tensorflow-2.21.0-cp311-cp311-manylinux_2_27_aarch64.whl",
        sha256: "4b24aca16d527a3cf1c37f720c04c484c3d20f4d0fdfa98632ac8b9f3be6eb5c",
        bytes: 281_828_020,
        members: TENSORFLOW_MEMBERS,
      },
    ],
  },
  cuda: {
    "linux-x64": [
      {
        requirement: `tensorflow==${TENSORFLOW_VERSION}`,
        file: "tensorflow-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl",
        sha256: "9056fbc9ba04235810b71ae6cbd958a196e8804fb53bbcffbf3e23b56155f124",
        bytes: 572_440_367,
        members: TENSORFLOW_MEMBERS,
      },
      ...CUDA_WHEELS_X64,
    ],
  },
};
