// The digest of saved tensors: crc32 of the bytes of a uint8 tensor of any shape, behind bytes
// whose crc32 is `start`.
#include "kernels/crc32.h"

#include "core/checks.h"
#include "core/fork.h"

namespace tae {
namespace {

int64_t crc32_of(const at::Tensor& data, int64_t start) {
  const Arg arg{"_crc32", "data"};
  check_tensor(arg, data, {at::kByte});
  TAE_CHECK_VALUE(start >= 0 && start <= UINT32_MAX, (Arg{"_crc32", "start"}), "be in [0, 4294967295]",
                  start);
  const at::Tensor plain = dense(arg, data);
  const Span<const uint8_t> bytes = bytes_of(arg, plain);
  SerialAfterFork serial;
  return kernels::crc32(best_isa(), static_cast<uint32_t>(start), bytes.begin(),
                        static_cast<size_t>(bytes.size()));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) { m.def("_crc32(Tensor data, int start=0) -> int"); }

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("_crc32", TORCH_FN(crc32_of)); }

}  // namespace tae
