#include "ops/post_ops.h"

#include <algorithm>
#include <cmath>

#include "core/checks.h"

namespace tae {
namespace {

struct Name {
  const char* name;
  PostOp::Kind kind;
  int num_args;
};

constexpr Name kNames[] = {
    {"relu", PostOp::Kind::relu, 0},
    {"clamp", PostOp::Kind::clamp, 2},
    {"leaky_relu", PostOp::Kind::leaky_relu, 1},
    {"silu", PostOp::Kind::silu, 0},
    {"gelu", PostOp::Kind::gelu_erf, 0},
    {"gelu_tanh", PostOp::Kind::gelu_tanh, 0},
    {"hardswish", PostOp::Kind::hardswish, 0},
    {"hardsigmoid", PostOp::Kind::hardsigmoid, 0},
    {"sigmoid", PostOp::Kind::sigmoid, 0},
    {"tanh", PostOp::Kind::tanh, 0},
    {"add", PostOp::Kind::add, 0},
    {"prelu", PostOp::Kind::prelu, 0},
    {"affine", PostOp::Kind::affine, 0},
};

std::string name_list() {
  std::string list;
  for (const Name& n : kNames) list += (list.empty() ? "" : ", ") + std::string(n.name);
  return list;
}

// "'add', 'prelu' or 'affine'"
std::string operand_list() {
  std::string list, last;
  for (const Name& n : kNames) {
    if (!reads_operand(n.kind)) continue;
    if (!last.empty()) list += (list.empty() ? "" : ", ") + last;
    last = c10::str("'", n.name, "'");
  }
  return list + " or " + last;
}

const Name* find(std::string_view name) {
  for (const Name& n : kNames)
    if (name == n.name) return &n;
  return nullptr;
}

}  // namespace

PostOps parse_post_ops(const char* op, std::string_view names, at::ArrayRef<double> args) {
  const Arg names_arg{op, "post_ops"};
  const Arg args_arg{op, "post_op_args"};
  c10::SmallVector<const Name*, kMaxPostOps> found;
  size_t num_names = 0;
  size_t num_adds = 0;
  size_t num_affines = 0;
  size_t num_args = 0;
  for (size_t begin = 0; !names.empty() && begin <= names.size(); ++num_names) {
    const size_t end = std::min(names.find(',', begin), names.size());
    const std::string_view word = names.substr(begin, end - begin);
    begin = end + 1;
    found.push_back(find(word));
    TAE_CHECK_VALUE(found.back() != nullptr, names_arg, c10::str("be one of ", name_list()),
                    c10::str("'", word, "'"));
    num_adds += found.back()->kind == PostOp::Kind::add;
    num_affines += found.back()->kind == PostOp::Kind::affine;
    num_args += found.back()->num_args;
  }
  TAE_CHECK_VALUE(num_names <= kMaxPostOps, names_arg, c10::str("have at most ", kMaxPostOps, " names"),
                  num_names);
  TAE_CHECK_VALUE(args.size() == num_args, args_arg, c10::str("have ", num_args, " values"), args.size());
  TAE_CHECK_VALUE(num_adds <= 1, names_arg, "have 'add' at most once", c10::str("'", names, "'"));
  TAE_CHECK_VALUE(num_affines <= 1, names_arg, "have 'affine' at most once", c10::str("'", names, "'"));

  PostOps post_ops;
  const double* next = args.data();
  for (const Name* n : found) {
    PostOp p;
    p.kind = n->kind;
    if (n->num_args > 0) p.alpha = nearest_float(*next++);
    if (n->num_args > 1) p.beta = nearest_float(*next++);
    if (p.kind == PostOp::Kind::leaky_relu) check_finite(args_arg, p.alpha);
    // Not of NaN either.
    TAE_CHECK_VALUE(p.kind != PostOp::Kind::clamp || p.alpha <= p.beta, args_arg,
                    "give 'clamp' a minimum not above its maximum", c10::str(p.alpha, " and ", p.beta));
    post_ops.push_back(p);
  }
  return post_ops;
}

void check_no_operands(const char* op, std::string_view names, const PostOps& post_ops) {
  for (const PostOp& p : post_ops)
    TAE_CHECK_VALUE(!reads_operand(p.kind), (Arg{op, "post_ops"}), "not contain " + operand_list(),
                    c10::str("'", names, "'"));
}

}  // namespace tae
