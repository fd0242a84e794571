#include "softgpu/ptx/lexer.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>

namespace softgpu::ptx {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_name_start(char c) { return is_alpha(c) || c == '_' || c == '$' || c == '%'; }
bool is_name(char c) { return is_alpha(c) || is_digit(c) || c == '_' || c == '$'; }

}  // namespace

void Lexer::skip_blanks() {
  while (at_ < end_) {
    if (*at_ == '\n') {
      ++line_;
      ++at_;
    } else if (*at_ == ' ' || *at_ == '\t' || *at_ == '\r' || *at_ == '\f' || *at_ == '\v' || *at_ == '\0') {
      ++at_;
    } else if (*at_ == '/' && at_ + 1 < end_ && at_[1] == '/') {
      while (at_ < end_ && *at_ != '\n') ++at_;
    } else if (*at_ == '/' && at_ + 1 < end_ && at_[1] == '*') {
      at_ += 2;
      while (at_ < end_ && !(*at_ == '*' && at_ + 1 < end_ && at_[1] == '/')) line_ += *at_++ == '\n';
      at_ = at_ + 2 <= end_ ? at_ + 2 : end_;
    } else {
      return;
    }
  }
}

Token Lexer::exact_real(const char* start, int digits, Token::Kind kind) {
  Token token{kind, line_, {}, 0};
  at_ = start + 2;
  const char* stop = end_ - at_ < digits ? end_ : at_ + digits;
  const auto [ptr, ec] = std::from_chars(at_, stop, token.value, 16);
  if (ptr != at_ + digits) token.kind = Token::Kind::kBad;
  at_ = ptr;
  token.text = {start, static_cast<size_t>(at_ - start)};
  return token;
}

Token Lexer::number(const char* start) {
  if (start[0] == '0' && start + 1 < end_) {
    if (start[1] == 'f' || start[1] == 'F') return exact_real(start, 8, Token::Kind::kReal32);
    if (start[1] == 'd' || start[1] == 'D') return exact_real(start, 16, Token::Kind::kReal);
  }
  Token token{Token::Kind::kInteger, line_, {}, 0};
  int base = 10;
  if (start[0] == '0' && start + 1 < end_ && (start[1] == 'x' || start[1] == 'X')) {
    base = 16;
    at_ = start + 2;
  } else if (start[0] == '0' && start + 1 < end_ && (start[1] == 'b' || start[1] == 'B')) {
    base = 2;
    at_ = start + 2;
  } else {
    const char* p = start;
    while (p < end_ && is_digit(*p)) ++p;
    if (p < end_ && (*p == '.' || *p == 'e' || *p == 'E')) {
      char* stop = nullptr;
      const std::string copy(start, std::min<size_t>(end_ - start, 64));
      const double value = std::strtod(copy.c_str(), &stop);
      std::memcpy(&token.value, &value, sizeof(value));
      token.kind = Token::Kind::kReal;
      at_ = start + (stop - copy.c_str());
      token.text = {start, static_cast<size_t>(at_ - start)};
      return token;
    }
    if (start[0] == '0' && p - start > 1) base = 8;
    at_ = start;
  }
  const auto [ptr, ec] = std::from_chars(at_, end_, token.value, base);
  if (ptr == at_ || ec != std::errc()) token.kind = Token::Kind::kBad;
  at_ = ptr;
  if (at_ < end_ && (*at_ == 'U' || *at_ == 'u')) ++at_;
  token.text = {start, static_cast<size_t>(at_ - start)};
  return token;
}

Token Lexer::next() {
  skip_blanks();
  if (at_ >= end_) return Token{Token::Kind::kEnd, line_, {}, 0};
  const char* start = at_;
  const auto finish = [&](Token::Kind kind) {
    return Token{kind, line_, {start, static_cast<size_t>(at_ - start)}, 0};
  };
  if (is_name_start(*start)) {
    ++at_;
    while (at_ < end_ && is_name(*at_)) ++at_;
    return finish(at_ - start == 1 && *start == '%' ? Token::Kind::kBad : Token::Kind::kName);
  }
  if (is_digit(*start)) return number(start);
  if (*start == '.' && at_ + 1 < end_ && is_name(at_[1])) {
    start = ++at_;
    while (at_ < end_ && (is_name(*at_) || (*at_ == ':' && at_ + 1 < end_ && (at_[1] == ':' || at_[-1] == ':')))) ++at_;
    return finish(Token::Kind::kDot);
  }
  if (*start == '"') {
    start = ++at_;
    while (at_ < end_ && *at_ != '"' && *at_ != '\n') at_ += (*at_ == '\\' && at_ + 1 < end_) ? 2 : 1;
    Token token = finish(Token::Kind::kString);
    if (at_ < end_) ++at_;
    return token;
  }
  ++at_;
  return finish(Token::Kind::kSymbol);
}

}  // namespace softgpu::ptx
