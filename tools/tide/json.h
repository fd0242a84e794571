#pragma once

// JSON as text, written from front to back.

#include <cstdint>
#include <string>

namespace tide::cli {

class Json {
 public:
  Json& object();  // {
  Json& list();    // [
  Json& end();     // the innermost of the two
  Json& key(const char* name);
  Json& text(const std::string& value);
  Json& number(uint64_t value);
  Json& number(int64_t value);
  Json& number(double value);
  // With all its digits, as few as give the same number again.
  Json& exact(double value);
  Json& boolean(bool value);
  // key + value
  Json& add(const char* name, const std::string& value) { return key(name).text(value); }
  Json& add(const char* name, uint64_t value) { return key(name).number(value); }
  Json& add(const char* name, uint32_t value) { return key(name).number(uint64_t(value)); }
  Json& add(const char* name, int32_t value) { return key(name).number(int64_t(value)); }
  Json& add(const char* name, double value) { return key(name).number(value); }
  Json& add(const char* name, bool value) { return key(name).boolean(value); }
  Json& add_exact(const char* name, double value) { return key(name).exact(value); }
  void print() const;   // and a newline
  void print_so_far();  // and forgets it: print() then gives the rest
  const std::string& str() const { return out_; }

 private:
  void comma();
  std::string out_;
  std::string open_;  // closing brackets, innermost last
  bool after_value_ = false;
};

}  // namespace tide::cli
