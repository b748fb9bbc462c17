#include "engines/onednn/onednn.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <iterator>
#include <memory>
#include <new>
#include <stdexcept>
#include <tuple>

#include "core/cpu_features.h"
#include "core/fork.h"
#include "engines/onednn/lru_cache.h"
#include "engines/onednn/runtime.h"
#include "engines/onednn/thread_args.h"

// oneDNN's assembler keeps the first error of a thread, and oneDNN 3.7 never clears it:
// after one allocation that failed, no primitive could be made on that thread any more.
// The definition is xbyak.h's own, so that the variable is the one that oneDNN reads.
namespace Xbyak::local {
inline int& GetErrorRef() {
  static thread_local int err = 0;
  return err;
}
}  // namespace Xbyak::local

// oneDNN's operator new gives null for want of memory, and its constructors run on it all the
// same. The linker sends its allocation here (--wrap): an exception that new-expressions expect.
extern "C" {
void* __real__ZN4dnnl4impl6mallocEmi(size_t size, int alignment);
void* __wrap__ZN4dnnl4impl6mallocEmi(size_t size, int alignment) {
  void* const memory = __real__ZN4dnnl4impl6mallocEmi(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}

namespace tae::onednn {
namespace {

// Levels without a VNNI form multiply with vpmaddubsw, whose 16-bit sums saturate:
// init_error() refuses them.
dnnl_cpu_isa_t isa_limit(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return dnnl_cpu_isa_sse41;
    case Isa::avx2:
      return dnnl_cpu_isa_avx2;
    case Isa::avx_vnni:
      return dnnl_cpu_isa_avx2_vnni;
    case Isa::avx512:
      return dnnl_cpu_isa_avx512_core;
    case Isa::avx512_vnni:
      return dnnl_cpu_isa_avx512_core_vnni;
    case Isa::amx:
      return dnnl_cpu_isa_default;
  }
  return dnnl_cpu_isa_sse41;
}

struct Engine {
  dnnl_engine_t handle = nullptr;
  std::string error;

  Engine() {
    const Isa isa = best_isa();
    // oneDNN takes its limit once, before anything asks for the ISA.
    static const bool limited = dnnl_set_max_cpu_isa(isa_limit(isa)) == dnnl_success;
    // A creation that throws would leave a promise in oneDNN's cache that nobody keeps; the
    // cache below is the one that is used.
    dnnl_set_primitive_cache_capacity(0);
    if (!limited)
      error = "oneDNN does not accept the ISA limit";
    else if (isa != Isa::avx_vnni && isa < Isa::avx512_vnni)
      error = std::string("ISA level ") + name_of(isa) +
              "; needs avx_vnni, avx512_vnni or amx (products of u8 and s8 saturate in int16 "
              "below)";
    else if (dnnl_engine_create(&handle, dnnl_cpu, 0) != dnnl_success)
      throw std::bad_alloc();  // what else a CPU can lack; not an answer to keep
  }
};

// Never destroyed: primitives and streams of other threads may outlive main().
const Engine& engine() {
  const DelayFork delay;
  static const Engine* instance = new Engine;
  return *instance;
}

}  // namespace

dnnl_engine* engine_handle() { return engine().handle; }

void check(int status, const char* what) {
  if (status == dnnl_success) return;
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  throw std::runtime_error(std::string("torch_ao_ext: oneDNN: ") + what + ": status " +
                           std::to_string(status));
}

CreationThreads::CreationThreads(int threads) : saved_(omp_get_max_threads()) {
  omp_set_num_threads(threads);
  Xbyak::local::GetErrorRef() = 0;
}

CreationThreads::~CreationThreads() { omp_set_num_threads(saved_); }

std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

std::string init_error() { return engine().error; }

Gemm::Gemm(int64_t rows, int64_t k, int64_t columns)
    : rows_(rows), k_(k), columns_(columns), id_(next_primitive_id()) {
  const DelayFork delay;                // oneDNN's own primitive cache has a lock
  const CreationThreads one_thread(1);  // it runs inside parallel_for
  const dnnl_dims_t src_dims = {rows, k}, weight_dims = {k, columns}, dst_dims = {rows, columns};
  const dnnl_dims_t src_strides = {src_stride(k), 1}, dst_strides = {columns, 1};
  dnnl_primitive_attr_t attr = nullptr;
  dnnl_primitive_desc_t desc = nullptr;
  dnnl_status_t status = dnnl_success;
  try {
    status = dnnl_memory_desc_create_with_strides(&src_, 2, src_dims, dnnl_u8, src_strides);
    if (status == dnnl_success)
      status = dnnl_memory_desc_create_with_tag(&weights_, 2, weight_dims, dnnl_s8, dnnl_BA16a64b4a);
    if (status == dnnl_success)
      status = dnnl_memory_desc_create_with_strides(&dst_, 2, dst_dims, dnnl_s32, dst_strides);
    if (status == dnnl_success) status = dnnl_primitive_attr_create(&attr);
    // In library mode a scratchpad belongs to the primitive: no concurrent calls.
    if (status == dnnl_success)
      status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
      status = dnnl_matmul_primitive_desc_create(&desc, engine_handle(), src_, weights_, nullptr, dst_, attr);
    if (status == dnnl_success) {
      const char* name = "";
      dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
      implementation_ = name;
      status = dnnl_memory_desc_clone(&scratchpad_,
                                      dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0));
    }
    if (status == dnnl_success) {
      scratchpad_bytes_ = dnnl_memory_desc_get_size(scratchpad_);
      if (implementation_.rfind("brg", 0) != 0)
        error_ = "oneDNN chose " + implementation_;
      else
        status = dnnl_primitive_create(&primitive_, desc);
    }
  } catch (const std::bad_alloc&) {
    status = dnnl_out_of_memory;
  }
  if (status != dnnl_success) error_ = "oneDNN: status " + std::to_string(status);
  out_of_memory_ = status == dnnl_out_of_memory;
  dnnl_primitive_desc_destroy(desc);
  dnnl_primitive_attr_destroy(attr);
}

Gemm::~Gemm() {
  dnnl_primitive_destroy(primitive_);
  for (dnnl_memory_desc* desc : {src_, weights_, dst_, scratchpad_}) dnnl_memory_desc_destroy(desc);
}

void Gemm::run(const uint8_t* src, const int8_t* weights, int32_t* dst, void* scratchpad) const {
  const ArgumentDesc wanted[] = {{DNNL_ARG_SRC, src_},
                                 {DNNL_ARG_WEIGHTS, weights_},
                                 {DNNL_ARG_DST, dst_},
                                 {DNNL_ARG_SCRATCHPAD, scratchpad_}};
  const std::vector<dnnl_exec_arg_t>& args = thread_args(id_, wanted, std::size(wanted));
  void* const handles[] = {const_cast<uint8_t*>(src), const_cast<int8_t*>(weights), dst, scratchpad};
  for (size_t i = 0; i < args.size(); ++i)
    check(dnnl_memory_set_data_handle(args[i].memory, handles[i]), "dnnl_memory_set_data_handle");
  check(dnnl_primitive_execute(primitive_, thread_stream(), static_cast<int>(args.size()), args.data()),
        "dnnl_primitive_execute");
}

int row_bucket(int64_t rows) {
  int i = 0;
  while (i < kNumRowBuckets - 1 && kRowBuckets[i] < rows) ++i;
  return i;
}

namespace {

using Key = std::tuple<int64_t, int64_t, int64_t>;  // rows, k, columns
using GemmPtr = std::shared_ptr<const Gemm>;

// A transformer needs about 2 shapes of columns for 4 shapes of weight and the buckets
// its batches hit; a primitive is 10 to 50 KB of code.
constexpr size_t kMaxEntries = 256;

using GemmCache = LruCache<Key, GemmPtr, kMaxEntries>;

GemmCache& cache() {
  const DelayFork delay;
  static GemmCache* instance = new GemmCache;
  return *instance;
}

}  // namespace

GemmPtr cached_gemm(int64_t rows, int64_t k, int64_t columns) {
  const Key key(rows, k, columns);
  if (GemmPtr found = cache().find(key)) return found;
  // Code generation outside the lock; of two threads that race, one result stays.
  auto made = std::make_shared<const Gemm>(rows, k, columns);
  // Not an answer about this shape, so not one to keep.
  if (made->out_of_memory()) throw std::bad_alloc();
  return cache().insert(key, std::move(made));
}

}  // namespace tae::onednn
