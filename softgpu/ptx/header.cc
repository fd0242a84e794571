#include "softgpu/ptx/header.h"

#include <algorithm>
#include <cctype>

#include "softgpu/ptx/lexer.h"

namespace softgpu::ptx {
namespace {

constexpr uint32_t kTargets[] = {10, 11, 12, 13, 20, 21, 30, 32, 35, 37,  50,  52,  53,  60,  61, 62,
                                 70, 72, 75, 80, 86, 87, 88, 89, 90, 100, 101, 103, 110, 120, 121};

uint32_t number_of(std::string_view digits) {
  uint32_t out = 0;
  for (const char c : digits.substr(0, 6)) {
    if (std::isdigit(static_cast<unsigned char>(c))) out = out * 10 + static_cast<uint32_t>(c - '0');
  }
  return out;
}

}  // namespace

Header read_header(std::string_view text) {
  Header out;
  Lexer lexer(text);
  for (Token token = lexer.next(); token.kind == Token::Kind::kDot; token = lexer.next()) {
    const std::string_view word = token.text;
    const uint32_t line = token.line;
    token = lexer.next();
    if (word == "version" && out.version == 0) {
      const size_t dot = token.text.find('.');
      out.version_text = std::string(token.text);
      out.version_line = line;
      out.version = number_of(token.text.substr(0, dot)) * 10;
      if (dot != std::string_view::npos) out.version += number_of(token.text.substr(dot + 1));
    } else if (word == "target") {
      out.target_text = std::string(token.text);
      out.target_line = line;
      if (token.text.starts_with("sm_")) out.target = number_of(token.text.substr(3));
      break;
    } else if (word != "address_size") {
      break;
    }
  }
  return out;
}

bool is_known_target(std::string_view name) {
  if (!name.starts_with("sm_")) return name.starts_with("compute_");
  std::string_view digits = name.substr(3);
  if (digits.ends_with('a') || digits.ends_with('f')) digits.remove_suffix(1);
  const bool plain = !digits.empty() &&
                     std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return plain && std::find(std::begin(kTargets), std::end(kTargets), number_of(digits)) != std::end(kTargets);
}

}  // namespace softgpu::ptx
