// From an engine's selection to the state that hangs on a weight, the same for every
// family of ops.
#pragma once

#include <utility>

#include "core/env.h"
#include "core/weight_state.h"
#include "engines/order.h"

namespace tae {

// NotImplementedError with the reasons when every engine refused.
template <typename ImplPtr>
PackedState packed_state(const char* op, SelectionOf<ImplPtr>&& selection) {
  TORCH_CHECK_NOT_IMPLEMENTED(selection.impl != nullptr, "torch_ao::", op, ": no engine accepts this call:\n",
                              refusal_lines(selection.refused));
  PackedState state;
  state.engine = selection.impl->engine();
  state.description = selection.impl->description();
  state.packed_bytes = selection.impl->packed_bytes();
  state.refused = std::move(selection.refused);
  state.impl = std::move(selection.impl);
  return state;
}

// One line of the dispatch log for a call of m rows.
inline void log_run(const char* op, int64_t m, int64_t k, int64_t n, const PackedState& state) {
  if (settings().log_dispatch.load(std::memory_order_relaxed))
    log_line(c10::str("run ", op, " m=", m, " k=", k, " n=", n, " engine=", state.engine, " kernel='",
                      state.description, "'"));
}

}  // namespace tae
