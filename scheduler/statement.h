#pragma once

// One prepared SQLite statement, finalised when it goes out of scope. Parameters and columns are taken in order.

#include <cstdint>
#include <string>

struct sqlite3;
struct sqlite3_stmt;

namespace tide::sched {

class Statement {
 public:
  Statement(sqlite3* db, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(uint64_t value);
  Statement& bind_real(double value);
  Statement& bind_text(const std::string& value);
  Statement& bind_bytes(const std::string& value);
  bool row();   // true: there is one more row
  bool done();  // runs to the end; false on an error
  bool failed() const { return failed_; }
  uint64_t number();
  double real();
  std::string text();

 private:
  sqlite3_stmt* statement_ = nullptr;
  int parameter_ = 0;
  int column_ = 0;
  bool failed_ = false;
};

}  // namespace tide::sched
