#include "scheduler/statement.h"

#include <sqlite3.h>

namespace tide::sched {

Statement::Statement(sqlite3* db, const char* sql) {
  failed_ = sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) != SQLITE_OK;
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(uint64_t value) {
  if (!failed_) failed_ = sqlite3_bind_int64(statement_, ++parameter_, sqlite3_int64(value)) != SQLITE_OK;
  return *this;
}

Statement& Statement::bind_real(double value) {
  if (!failed_) failed_ = sqlite3_bind_double(statement_, ++parameter_, value) != SQLITE_OK;
  return *this;
}

Statement& Statement::bind_text(const std::string& value) {
  if (failed_) return *this;
  failed_ = sqlite3_bind_text(statement_, ++parameter_, value.data(), int(value.size()), SQLITE_TRANSIENT) != SQLITE_OK;
  return *this;
}

Statement& Statement::bind_bytes(const std::string& value) {
  if (failed_) return *this;
  failed_ = sqlite3_bind_blob(statement_, ++parameter_, value.data(), int(value.size()), SQLITE_TRANSIENT) != SQLITE_OK;
  return *this;
}

bool Statement::row() {
  if (failed_) return false;
  column_ = 0;
  const int code = sqlite3_step(statement_);
  failed_ = code != SQLITE_ROW && code != SQLITE_DONE;
  return code == SQLITE_ROW;
}

bool Statement::done() {
  while (row()) {
  }
  return !failed_;
}

uint64_t Statement::number() { return uint64_t(sqlite3_column_int64(statement_, column_++)); }

double Statement::real() { return sqlite3_column_double(statement_, column_++); }

std::string Statement::text() {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column_));
  const int bytes = sqlite3_column_bytes(statement_, column_++);
  return data == nullptr ? std::string() : std::string(data, size_t(bytes));
}

}  // namespace tide::sched
