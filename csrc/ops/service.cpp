// Ops without a tensor kernel: what runs where, settings, packed states. They have one
// kernel for every key and are not meant for graphs.
#include <cstdio>

#include "core/checks.h"
#include "core/cpu_features.h"
#include "core/env.h"
#include "core/weight_state.h"
#include "engines/order.h"

namespace tae {
namespace {

// A JSON text, built front to back: keys and values alternate.
class Json {
 public:
  Json& open(char bracket) {
    separate();
    text_ += bracket;
    fresh_ = true;
    return *this;
  }
  Json& close(char bracket) {
    text_ += bracket;
    fresh_ = false;
    return *this;
  }
  Json& key(const char* name) {
    value(std::string_view(name));
    text_ += ": ";
    fresh_ = true;
    return *this;
  }
  Json& value(std::string_view s) {
    separate();
    text_ += '"';
    for (char c : s) {
      if (c == '"' || c == '\\') {
        text_ += '\\';
        text_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        char buffer[8];
        std::snprintf(buffer, sizeof buffer, "\\u%04x", c);
        text_ += buffer;
      } else {
        text_ += c;
      }
    }
    text_ += '"';
    return *this;
  }
  Json& value(const char* s) { return value(std::string_view(s)); }
  Json& value(int64_t n) {
    separate();
    text_ += std::to_string(n);
    return *this;
  }
  Json& value(bool b) {
    separate();
    text_ += b ? "true" : "false";
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  void separate() {
    if (!fresh_) text_ += ", ";
    fresh_ = false;
  }
  std::string text_;
  bool fresh_ = true;
};

std::string info() {
  const Settings& s = settings();
  Json j;
  j.open('{').key("version").value(TAE_VERSION);
  j.key("torch_built").value(TAE_TORCH_VERSION);
  j.key("cpu_features").open('[');
  for (const std::string& f : cpu_feature_names()) j.value(f);
  j.close(']');
  j.key("isa_cap").value(name_of(isa_cap())).key("best_isa").value(name_of(best_isa()));
  j.key("l1_bytes").value(l1_bytes()).key("l2_bytes").value(l2_bytes());
  j.key("engines").open('[');
  for (const EngineInfo& e : engine_infos()) {
    j.open('{').key("name").value(e.name).key("version").value(e.version);
    j.key("problem").value(e.problem).close('}');
  }
  j.close(']');
  j.key("engine").value(s.engine == Engine::automatic ? "" : name_of(s.engine.load()));
  j.key("deterministic").value(s.deterministic.load());
  j.key("log_dispatch").value(s.log_dispatch.load());
  j.key("check_weights").value(s.check_weights.load());
  j.key("pack_count").value(pack_count());
  j.key("max_states_per_weight").value(int64_t{kMaxStates});
  j.close('}');
  return j.text();
}

void check_weight(const char* op, const at::Tensor& weight) {
  const bool plain = weight.defined() && weight.is_cpu() && weight.layout() == at::kStrided;
  TAE_CHECK_TYPE(
      plain, (Arg{op, "weight"}), "be a dense CPU tensor",
      weight.defined() ? c10::str("layout ", weight.layout(), " on ", weight.device()) : std::string("None"));
}

std::string explain(const at::Tensor& weight) {
  check_weight("_explain", weight);
  Json j;
  j.open('{').key("pack_count").value(pack_count(weight)).key("states").open('[');
  for (const StateReport& r : states_of(weight)) {
    j.open('{').key("op").value(r.op).key("engine").value(r.state->engine);
    j.key("description").value(r.state->description);
    j.key("packed_bytes").value(static_cast<int64_t>(r.state->packed_bytes));
    j.key("refused").open('[');
    for (const auto& [engine, reason] : r.state->refused) j.open('[').value(engine).value(reason).close(']');
    j.close(']').close('}');
  }
  j.close(']').close('}');
  return j.text();
}

void repack(const at::Tensor& weight) {
  check_weight("_repack", weight);
  clear_states(weight);
}

void set_engine_by_name(std::string_view name) {
  Engine engine;
  TAE_CHECK_VALUE(parse_engine(name, &engine), (Arg{"_set_engine", "name"}),
                  c10::str("be one of ", engine_name_list(), " or ''"), c10::str("'", name, "'"));
  set_engine(engine);
}

int64_t pack_count_of(const std::optional<at::Tensor>& weight) {
  if (!weight.has_value() || !weight->defined()) return pack_count();
  check_weight("_pack_count", *weight);
  return pack_count(*weight);
}

std::string init_error_text() { return init_error(); }

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def("_init_error() -> str", TORCH_FN(init_error_text));
  m.def("_info() -> str", TORCH_FN(info));
  m.def("_explain(Tensor weight) -> str", TORCH_FN(explain));
  m.def("_repack(Tensor weight) -> ()", TORCH_FN(repack));
  m.def("_set_engine(str name) -> ()", TORCH_FN(set_engine_by_name));
  m.def("_set_deterministic(bool enabled) -> ()", TORCH_FN(set_deterministic));
  m.def("_set_dispatch_log(bool enabled) -> ()", TORCH_FN(set_dispatch_log));
  m.def("_pack_count(Tensor? weight=None) -> int", TORCH_FN(pack_count_of));
}

}  // namespace tae

// The one exported symbol: a C++ program that names it keeps the library under
// --as-needed, and so its operators.
extern "C" __attribute__((visibility("default"))) const char* torch_ao_ext_version() { return TAE_VERSION; }
