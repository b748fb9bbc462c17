// Post-ops as a schema spells them: names joined by commas, their numbers in order.
#pragma once

#include <string_view>

#include "core/post_ops.h"
#include "core/torch_api.h"

namespace tae {

// 'relu,clamp', [0.0, 6.0] -> {relu, clamp(0, 6)}. ValueError for an unknown name, a
// wrong count of numbers, more than kMaxPostOps, a second 'add' or 'affine', NaN.
PostOps parse_post_ops(const char* op, std::string_view names, at::ArrayRef<double> args);

// ValueError when one of them reads an operand: for an op that has no such arguments. `names` as parsed.
void check_no_operands(const char* op, std::string_view names, const PostOps& post_ops);

// Whether the op has a `slope`, `affine_weight` and `affine_bias`, or an `other` operand. Cheap, and exact
// for names that parse.
inline bool names_prelu(std::string_view names) { return names.find("prelu") != std::string_view::npos; }
inline bool names_affine(std::string_view names) { return names.find("affine") != std::string_view::npos; }
inline bool names_add(std::string_view names) { return names.find("add") != std::string_view::npos; }

}  // namespace tae
