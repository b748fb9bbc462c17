#include "core/env.h"

#include <cstdio>
#include <cstdlib>

#include "core/cpu_features.h"

namespace tae {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

void complain(std::string* errors, const char* name, const std::string& rule, std::string_view got) {
  if (!errors->empty()) *errors += "\n";
  *errors += std::string("torch_ao_ext: ") + name + " must be " + rule + ", got '" + std::string(got) + "'";
}

void read_switch(const char* name, std::atomic<bool>* to, std::string* errors) {
  const std::string_view value = variable(name);
  if (value == "1") {
    to->store(true);
  } else if (!value.empty() && value != "0") {
    complain(errors, name, "0 or 1", value);
  }
}

struct State {
  Settings settings;
  std::string errors;

  State() {
    Engine engine = Engine::automatic;
    const std::string_view name = variable("TORCH_AO_EXT_ENGINE");
    if (!parse_engine(name, &engine))
      complain(&errors, "TORCH_AO_EXT_ENGINE", "one of " + engine_name_list(), name);
    settings.engine.store(engine);

    read_switch("TORCH_AO_EXT_DETERMINISTIC", &settings.deterministic, &errors);
    read_switch("TORCH_AO_EXT_CHECK_WEIGHTS", &settings.check_weights, &errors);
    const std::string_view log = variable("TORCH_AO_EXT_LOG");
    if (log == "dispatch") {
      settings.log_dispatch.store(true);
    } else if (!log.empty()) {
      complain(&errors, "TORCH_AO_EXT_LOG", "'dispatch'", log);
    }
    const std::string isa = isa_cap_error();
    if (!isa.empty()) errors += (errors.empty() ? "" : "\n") + isa;
  }
};

State& state() {
  static State* const s = new State;  // never destroyed: ops may run during exit
  return *s;
}

void changed() { state().settings.generation.fetch_add(1); }

}  // namespace

bool parse_engine(std::string_view name, Engine* engine) {
  if (name.empty()) {
    *engine = Engine::automatic;
    return true;
  }
  for (int i = 0; i < kNumEngines; ++i) {
    if (name == kEngineNames[i]) {
      *engine = static_cast<Engine>(i);
      return true;
    }
  }
  return false;
}

std::string engine_name_list() {
  std::string list;
  for (const char* name : kEngineNames) list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

Settings& settings() { return state().settings; }

void set_engine(Engine engine) {
  if (settings().engine.exchange(engine) != engine) changed();
}

void set_deterministic(bool on) {
  if (settings().deterministic.exchange(on) != on) changed();
}

void set_dispatch_log(bool on) { settings().log_dispatch.store(on); }

const std::string& init_error() { return state().errors; }

void log_line(const std::string& text) {
  const std::string line = "torch_ao_ext: " + text + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);  // one call: lines of threads do not mix
}

}  // namespace tae
