#include "scheduler/simulate/csv.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace tide::simulate {
namespace {

constexpr size_t kFileBytesMax = size_t(4) << 30;
constexpr size_t kFieldsMax = 256;

}  // namespace

bool split_row(std::string_view line, std::vector<std::string>* fields) {
  fields->assign(1, "");
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      fields->back() += line[i++];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted && fields->size() < kFieldsMax) {
      fields->emplace_back();
    } else {
      fields->back() += c;
    }
  }
  return !quoted;
}

std::string read_whole(const std::string& path, std::string* text) {
  errno = 0;
  const gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return std::string("cannot be read: ") + strerror(errno == 0 ? ENOMEM : errno);
  gzbuffer(file, 1u << 18);
  std::vector<char> buffer(1u << 18);
  int got = 0;
  while ((got = gzread(file, buffer.data(), unsigned(buffer.size()))) > 0 && text->size() < kFileBytesMax) {
    text->append(buffer.data(), size_t(got));
  }
  int code = Z_OK;
  const std::string what = gzerror(file, &code);
  const bool is_cut = gzclose(file) == Z_BUF_ERROR;
  if (text->size() >= kFileBytesMax) return "is longer than 4 GiB";
  if (code == Z_ERRNO) return std::string("cannot be read: ") + strerror(errno == 0 ? EIO : errno);
  if (got < 0 || code != Z_OK) return "is no whole gzip file: " + what;
  return is_cut ? "ends in the middle: the gzip file was cut off" : "";
}

Outcome read_rows(const std::string& path, const std::function<Outcome(std::string_view)>& first,
                  const std::function<Outcome(const std::vector<std::string>&)>& row) {
  std::string text;
  if (const std::string failed = read_whole(path, &text); !failed.empty()) return Outcome::fail(path + ": " + failed);
  std::string_view rest(text);
  std::vector<std::string> fields;
  for (uint32_t number = 1; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    const Outcome outcome = number == 1                ? first(line)
                            : split_row(line, &fields) ? row(fields)
                                                       : Outcome::fail("a quote that does not end");
    if (!outcome.ok()) return Outcome::fail(format("%s:%u: %s", path.c_str(), number, outcome.message().c_str()));
  }
  return {};
}

}  // namespace tide::simulate
