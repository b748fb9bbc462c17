// Settings from the environment at load, and their setters at run time.
//   TORCH_AO_EXT_ENGINE         native | onednn | xnnpack | reference: only this one
//   TORCH_AO_EXT_DETERMINISTIC  1: only engines that follow the numerics rule exactly
//   TORCH_AO_EXT_LOG            dispatch: one line a packing and a call on stderr
//   TORCH_AO_EXT_CHECK_WEIGHTS  1: compare a digest of the weights' bytes on each call
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace tae {

enum class Engine : int8_t { automatic = -1, native, onednn, xnnpack, reference };
constexpr const char* kEngineNames[] = {"native", "onednn", "xnnpack", "reference"};
constexpr int kNumEngines = 4;
inline const char* name_of(Engine e) {
  return e == Engine::automatic ? "automatic" : kEngineNames[static_cast<int>(e)];
}

// False when the name is unknown. "" is automatic.
bool parse_engine(std::string_view name, Engine* engine);
// "native, onednn, xnnpack, reference"
std::string engine_name_list();

struct Settings {
  std::atomic<Engine> engine{Engine::automatic};
  std::atomic<bool> deterministic{false};
  std::atomic<bool> log_dispatch{false};
  std::atomic<bool> check_weights{false};
  // Part of every weight-state key: changes with each setting that may change the
  // choice of an engine, so a packing made under other settings is not found.
  std::atomic<uint64_t> generation{0};
};
Settings& settings();

void set_engine(Engine engine);
void set_deterministic(bool on);
void set_dispatch_log(bool on);

// What is wrong with the environment (engine name, ISA cap, switches), one line
// each; empty when all is well. Raised at import and before the first packing.
const std::string& init_error();

// One line on stderr, never on stdout.
void log_line(const std::string& text);

}  // namespace tae
