#pragma once

// Splits PTX text into tokens, one at a time.

#include <cstdint>
#include <string_view>

namespace softgpu::ptx {

struct Token {
  enum class Kind : uint8_t {
    kEnd,
    kName,     // foo, %r1, $L__BB0_1
    kDot,      // .f32, .L2::128B; text without the dot
    kInteger,  // value
    kReal,     // value: bits of a double
    kReal32,   // value: bits of a float
    kString,   // text without the quotes
    kSymbol,   // one character of punctuation
    kBad,
  };
  Kind kind = Kind::kEnd;
  uint32_t line = 1;
  std::string_view text;
  uint64_t value = 0;

  bool is(char c) const { return kind == Kind::kSymbol && text[0] == c; }
  bool dot(std::string_view s) const { return kind == Kind::kDot && text == s; }
};

class Lexer {
 public:
  explicit Lexer(std::string_view text, uint32_t line = 1)
      : at_(text.data()), end_(text.data() + text.size()), line_(line) {}
  Token next();

 private:
  void skip_blanks();
  Token number(const char* start);
  Token exact_real(const char* start, int digits, Token::Kind kind);

  const char* at_;
  const char* end_;
  uint32_t line_;
};

}  // namespace softgpu::ptx
