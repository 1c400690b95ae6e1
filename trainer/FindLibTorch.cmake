# LibTorch from the project's virtual environment, or any LibTorch named by CMAKE_PREFIX_PATH.
#
# The package's own TorchConfig.cmake demands the whole CUDA toolkit when the wheel was built with CUDA; linking on CPUs
# needs torch_cpu and c10 alone, so the libraries are looked up by name here.
#   LibTorch::cpu   torch_cpu, c10
#   LibTorch::cuda  torch_cuda, c10_cuda (if LibTorch_CUDA_FOUND)
file(GLOB _venv_torch ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS ${_venv_torch} PATH_SUFFIXES include)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${_venv_torch} PATH_SUFFIXES lib)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${_venv_torch} PATH_SUFFIXES lib)
find_library(LibTorch_CUDA_LIBRARY torch_cuda HINTS ${_venv_torch} PATH_SUFFIXES lib)
find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${_venv_torch} PATH_SUFFIXES lib)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run `make quickstart` (it makes .venv), or name a LibTorch with -DCMAKE_PREFIX_PATH=DIR")
if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  get_filename_component(_libdir ${LibTorch_CPU_LIBRARY} DIRECTORY)
  add_library(LibTorch::cpu INTERFACE IMPORTED)
  set_target_properties(LibTorch::cpu PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${LibTorch_INCLUDE_DIR}
    INTERFACE_LINK_LIBRARIES "${LibTorch_CPU_LIBRARY};${LibTorch_C10_LIBRARY}"
    # cudart and cupti, which torch_cpu of the CUDA wheel needs, are found by its own run path.
    INTERFACE_LINK_OPTIONS "LINKER:--allow-shlib-undefined")
  if(LibTorch_CUDA_LIBRARY AND LibTorch_C10_CUDA_LIBRARY)
    set(LibTorch_CUDA_FOUND TRUE)
    add_library(LibTorch::cuda INTERFACE IMPORTED)
    set_target_properties(LibTorch::cuda PROPERTIES
      INTERFACE_LINK_LIBRARIES "LibTorch::cpu;${LibTorch_CUDA_LIBRARY};${LibTorch_C10_CUDA_LIBRARY}")
  endif()
endif()
