#include "ops/island_program.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "core/checks.h"

namespace tae {
namespace {

constexpr Arg kProgram{"island", "program"};
constexpr size_t kMostSteps = 100000;
constexpr int kMostTensors = 1000000;

constexpr at::ScalarType kDtypes[] = {at::kByte,  at::kChar,     at::kInt,   at::kLong,
                                      at::kFloat, at::kBFloat16, at::kDouble};

[[noreturn]] void fail(size_t line, const std::string& rule, std::string_view got) {
  TAE_CHECK_VALUE(false, kProgram, c10::str(rule, " in line ", line + 1), c10::str("'", got, "'"));
  TORCH_INTERNAL_ASSERT(false);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t end = text.find(separator); end != std::string_view::npos; end = text.find(separator, begin)) {
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

template <typename T>
bool read_whole(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

class Parser {
 public:
  explicit Parser(std::string_view text) : lines_(split(text, '\n')) { program_.text = std::string(text); }

  std::shared_ptr<const IslandProgram> parse() {
    header();
    for (line_ = 1; line_ + 1 < lines_.size(); ++line_) step();
    results();
    note_last_uses();
    return std::make_shared<const IslandProgram>(std::move(program_));
  }

 private:
  [[noreturn]] void refuse(const std::string& rule, std::string_view got) { fail(line_, rule, got); }

  int count(std::string_view part, std::string_view name) {
    int value = -1;
    const bool named = part.substr(0, name.size()) == name;
    if (!named || !read_whole(part.substr(name.size()), &value) || value < 0 || value > kMostTensors)
      refuse(c10::str("hold '", name, "<count>'"), part);
    return value;
  }

  void header() {
    const auto parts = split(lines_[0], ' ');
    if (parts.size() != 4 || parts[0] != "torch_ao.island" || parts[1] != "1")
      refuse("start with 'torch_ao.island 1 inputs=<count> constants=<count>'", lines_[0].substr(0, 80));
    if (lines_.size() < 2) refuse("end with a line 'return %<value> ..'", lines_[0]);
    if (lines_.size() > kMostSteps) refuse("have at most 100000 lines", c10::str(lines_.size()));
    program_.inputs = program_.values = count(parts[2], "inputs=");
    program_.constants = count(parts[3], "constants=");
  }

  // "%3" or "@3"
  IslandStep::Source source(std::string_view token, int argument) {
    IslandStep::Source s{argument, token[0] == '@', -1};
    const int limit = s.constant ? program_.constants : program_.values;
    if (!read_whole(token.substr(1), &s.index) || s.index < 0 || s.index >= limit)
      refuse(c10::str("name a ", s.constant ? "constant" : "value", " below ", limit), token);
    return s;
  }

  template <typename T>
  T number(std::string_view token) {
    T value{};
    if (!read_whole(token, &value)) refuse("hold a number", token);
    return value;
  }

  template <typename T>
  c10::IValue numbers(std::string_view token) {
    c10::List<T> list;
    if (!token.empty())
      for (std::string_view part : split(token, ',')) list.push_back(number<T>(part));
    return list;
  }

  at::ScalarType dtype(std::string_view token) {
    for (at::ScalarType known : kDtypes)
      if (token == dtype_name(known)) return known;
    refuse("hold a dtype of int8, uint8, int32, int64, float32, float64, bfloat16", token);
  }

  c10::IValue value(std::string_view token) {
    const std::string_view rest = token.substr(1);
    switch (token[0]) {
      case 'n':
        if (!rest.empty()) break;
        return {};
      case 'i':
        return number<int64_t>(rest);
      case 'f':
        return number<double>(rest);
      case 'b':
        if (rest != "0" && rest != "1") break;
        return rest == "1";
      case 's':
        return std::string(rest);
      case 'd':
        return static_cast<int64_t>(dtype(rest));
      case 'I':
        return numbers<int64_t>(rest);
      case 'F':
        return numbers<double>(rest);
      default:
        break;
    }
    refuse("hold arguments of the kinds % @ n i f b s d I F T", token);
  }

  static bool takes_tensor(const c10::Argument& argument) {
    return c10::TensorType::get()->isSubtypeOf(*argument.type());
  }
  static bool takes_tensors(const c10::Argument& argument) {
    return c10::ListType::ofTensors()->isSubtypeOf(*argument.type());
  }

  // Operators of ATen trust the number of a dtype or a memory format.
  void check_enumeration(std::string_view token, const c10::Argument& declared) {
    c10::TypePtr type = declared.real_type();
    if (const auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
    if (type->kind() == c10::TypeKind::ScalarTypeType)
      refuse(c10::str("give '", declared.name(), "' a dtype by name"), token);
    if (type->kind() != c10::TypeKind::MemoryFormatType) return;
    const int64_t format = number<int64_t>(token.substr(1));
    if (format < 0 || format > static_cast<int64_t>(at::MemoryFormat::ChannelsLast3d))
      refuse(c10::str("give '", declared.name(), "' a memory format"), token);
  }

  void argument(std::string_view token, const c10::Argument& declared, int index, IslandStep* step) {
    if (token.empty()) refuse("separate arguments by one space", lines_[line_].substr(0, 80));
    if (token[0] == '%' || token[0] == '@') {
      if (!takes_tensor(declared)) refuse(c10::str("give '", declared.name(), "' no tensor"), token);
      step->tensors.push_back(source(token, index));
      step->arguments.emplace_back();
      return;
    }
    if (token[0] == 'T') {
      if (!takes_tensors(declared))
        refuse(c10::str("give '", declared.name(), "' no list of tensors"), token);
      IslandStep::List list{index, {}};
      if (token.size() > 1)
        for (std::string_view part : split(token.substr(1), ',')) {
          if (part.size() < 2 || (part[0] != '%' && part[0] != '@'))
            refuse("list tensors as %<n> or @<n>", part);
          list.tensors.push_back(source(part, index));
        }
      step->lists.push_back(std::move(list));
      step->arguments.emplace_back();
      return;
    }
    if (token[0] == 'i') check_enumeration(token, declared);
    c10::IValue parsed = value(token);
    const bool fits = parsed.isNone() ? c10::NoneType::get()->isSubtypeOf(*declared.type())
                                      : parsed.type()->isSubtypeOf(*declared.type());
    if (!fits) refuse(c10::str("give '", declared.name(), "' a ", declared.type()->str()), token);
    step->arguments.push_back(std::move(parsed));
  }

  c10::OperatorHandle find(std::string_view name) {
    const auto op = find_island_operator(name);
    if (!op.has_value()) refuse("name an operator that islands know", name);
    return *op;
  }

  void step() {
    std::string_view text = lines_[line_];
    std::string label;
    if (const size_t mark = text.find(" # "); mark != std::string_view::npos) {
      const std::string_view note = text.substr(mark + 3);
      label = std::string(note.substr(0, note.find(' ')));
      text = text.substr(0, mark);
    }
    const auto tokens = split(text, ' ');
    IslandStep step{find(tokens[0]), {}, {}, {}, {}, std::move(label)};
    const auto& declared = step.op.schema().arguments();
    if (tokens.size() - 1 > declared.size())
      refuse(c10::str("give ", tokens[0], " at most ", declared.size(), " arguments"),
             c10::str(tokens.size() - 1));
    for (size_t i = 0; i < declared.size(); ++i) {
      if (i + 1 < tokens.size()) {
        argument(tokens[i + 1], declared[i], static_cast<int>(i), &step);
      } else {
        const auto& fallback = declared[i].default_value();
        if (!fallback.has_value())
          refuse(c10::str("give ", tokens[0], " its '", declared[i].name(), "'"), "nothing");
        step.arguments.push_back(*fallback);
      }
    }
    program_.steps.push_back(std::move(step));
    ++program_.values;
  }

  void results() {
    line_ = lines_.size() - 1;
    const auto tokens = split(lines_[line_], ' ');
    if (tokens[0] != "return" || tokens.size() < 2)
      refuse("end with a line 'return %<value> ..'", lines_[line_].substr(0, 80));
    for (size_t i = 1; i < tokens.size(); ++i) {
      if (tokens[i].size() < 2 || tokens[i][0] != '%') refuse("return values", tokens[i]);
      program_.results.push_back(source(tokens[i], 0).index);
    }
  }

  void note_last_uses() {
    std::vector<int> last(program_.values, -1);
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const auto see = [&](const IslandStep::Source& s) {
        if (!s.constant) last[s.index] = static_cast<int>(i);
      };
      last[program_.inputs + i] = static_cast<int>(i);  // a result nobody reads
      for (const auto& s : program_.steps[i].tensors) see(s);
      for (const auto& list : program_.steps[i].lists)
        for (const auto& s : list.tensors) see(s);
    }
    for (int result : program_.results) last[result] = -1;
    for (int v = 0; v < program_.values; ++v)
      if (last[v] >= 0) program_.steps[last[v]].last_uses.push_back(v);
  }

  std::vector<std::string_view> lines_;
  size_t line_ = 0;
  IslandProgram program_;
};

}  // namespace

std::shared_ptr<const IslandProgram> parse_island(std::string_view text) { return Parser(text).parse(); }

}  // namespace tae
