// Parts of libtorch that tch does not bind, behind a C ABI.
//
// Every function that can fail returns nullptr when it succeeded, or a message that the
// caller frees with `ddpo_free`. No exception leaves this file.
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

char *copy(const char *message) {
  char *out = strdup(message);
  if (out == nullptr) std::abort(); // out of memory for a few bytes: nothing can be reported
  return out;
}

template <class F> char *guard(F f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error &e) {
    return copy(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return copy(e.what());
  } catch (...) {
    return copy("unknown C++ exception");
  }
}

// at::Tensor is a counted pointer: these copies share the storage.
std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t n) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (size_t i = 0; i < n; i++) out.push_back(*tensors[i]);
  return out;
}

} // namespace

extern "C" {

void ddpo_free(char *message) { free(message); }

char *ddpo_fused_adamw(at::Tensor *const *params, at::Tensor *const *grads, at::Tensor *const *exp_avgs,
                       at::Tensor *const *exp_avg_sqs, at::Tensor *const *steps, size_t n, double lr,
                       double beta1, double beta2, double weight_decay, double eps) {
  return guard([&] {
    at::NoGradGuard no_grad;
    auto counts = list(steps, n);
    at::_foreach_add_(counts, 1);
    at::_fused_adamw_(list(params, n), list(grads, n), list(exp_avgs, n), list(exp_avg_sqs, n), {}, counts, lr,
                      beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

// `out` has room for `n` pointers; each becomes a tensor that the caller owns.
char *ddpo_foreach_norm(at::Tensor *const *tensors, size_t n, at::Tensor **out) {
  return guard([&] {
    at::NoGradGuard no_grad;
    auto norms = at::_foreach_norm(list(tensors, n), 2, at::kFloat);
    for (size_t i = 0; i < n; i++) out[i] = new at::Tensor(norms.at(i));
  });
}

char *ddpo_foreach_mul(at::Tensor *const *tensors, size_t n, double factor) {
  return guard([&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(list(tensors, n), factor);
  });
}

char *ddpo_foreach_lerp(at::Tensor *const *tensors, at::Tensor *const *ends, size_t n, double weight) {
  return guard([&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(list(tensors, n), list(ends, n), weight);
  });
}

char *ddpo_backward(at::Tensor *of, at::Tensor *grad) {
  return guard([&] { of->backward(*grad); });
}

// `kind` is an at::ScalarType; the previous state goes to `was_enabled` and `was_kind`, to be restored.
char *ddpo_autocast_enter(bool cuda, int kind, bool *was_enabled, int *was_kind) {
  return guard([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    // Held casts that were made without gradients have no graph: trained weights are cast again.
    if (at::GradMode::is_enabled()) at::autocast::clear_cache();
    *was_enabled = at::autocast::is_autocast_enabled(device);
    *was_kind = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::increment_nesting();
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(kind));
    at::autocast::set_autocast_enabled(device, true);
  });
}

char *ddpo_autocast_exit(bool cuda, int kind, bool enabled) {
  return guard([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(kind));
    // Weights that were cast within the region; cached any longer they would outlive an update.
    bool last = at::autocast::decrement_nesting() == 0;
    if (last || at::GradMode::is_enabled()) at::autocast::clear_cache();
  });
}

// Casts outlive the regions that made them, up to the release: libtorch counts it as one more region around them.
char *ddpo_autocast_hold() {
  return guard([&] { at::autocast::increment_nesting(); });
}

char *ddpo_autocast_release() {
  return guard([&] {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  });
}

// Host memory must be pinned for the copy to be asynchronous; the caller waits before it reads.
char *ddpo_copy_async(at::Tensor *to, at::Tensor *from) {
  return guard([&] {
    at::NoGradGuard no_grad;
    to->copy_(*from, /*non_blocking=*/true);
  });
}

// Bytes of a CUDA device's tensors: now, and the most since the last reset.
char *ddpo_cuda_memory(int device, bool reset, int64_t *now, int64_t *peak) {
  return guard([&] {
    auto *allocator = c10::getDeviceAllocator(at::kCUDA);
    if (reset) allocator->resetPeakStats(static_cast<c10::DeviceIndex>(device));
    auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    auto bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    *now = bytes.current;
    *peak = bytes.peak;
  });
}

char *ddpo_set_tf32(bool allow) {
  return guard([&] {
    at::globalContext().setAllowTF32CuBLAS(allow);
    at::globalContext().setAllowTF32CuDNN(allow);
  });
}

char *ddpo_tf32(bool *products, bool *convolutions) {
  return guard([&] {
    *products = at::globalContext().allowTF32CuBLAS();
    *convolutions = at::globalContext().allowTF32CuDNN();
  });
}

char *ddpo_set_deterministic(bool on) {
  return guard([&] {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
    at::globalContext().setDeterministicCuDNN(on);
  });
}

// What `ddpo_load_cuda` found; the numbers are those of the Rust side.
enum { CUDA_LOADED = 0, CUDA_NO_DRIVER = 1, CUDA_NO_LIBRARY = 2, CUDA_FAILED = 3 };

// Sets `status`; `detail` becomes the folder searched (2) or the loader's message (3), to be freed.
char *ddpo_load_cuda(int *status, char **detail) {
  return guard([&] {
    *detail = nullptr;
    // Without a driver the CUDA libraries would only cost memory.
    if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == nullptr) {
      *status = CUDA_NO_DRIVER;
      return;
    }
    Dl_info info;
    void *symbol = dlsym(RTLD_DEFAULT, "_ZN5torch4cuda12is_availableEv");
    if (symbol == nullptr || dladdr(symbol, &info) == 0 || info.dli_fname == nullptr)
      throw std::runtime_error("the folder of libtorch_cpu.so could not be found");
    std::string folder(info.dli_fname);
    size_t slash = folder.rfind('/');
    folder.resize(slash == std::string::npos ? 0 : slash);
    std::string path = folder + "/libtorch_cuda.so";
    if (FILE *file = fopen(path.c_str(), "rb")) {
      fclose(file);
    } else {
      *status = CUDA_NO_LIBRARY;
      *detail = copy(folder.c_str());
      return;
    }
    // Global, so that its kernels see the symbols of libtorch_cpu.so and the other way round.
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      const char *message = dlerror();
      *status = CUDA_FAILED;
      *detail = copy(message == nullptr ? "dlopen failed" : message);
      return;
    }
    *status = CUDA_LOADED;
  });
}

} // extern "C"
