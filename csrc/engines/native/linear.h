// The native engine's linear, with a door that forces the ISA level.
#pragma once

#include "core/cpu_features.h"
#include "engines/linear.h"

namespace tae {

// Like make_linear_native, on exactly this level; refuses when the CPU lacks it.
Result<LinearImplPtr> make_linear_native_at(const LinearProblem& p, Isa isa);

}  // namespace tae
