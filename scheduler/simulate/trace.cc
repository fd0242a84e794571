#include "scheduler/simulate/trace.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>
#include <unordered_set>

#include "base/log.h"
#include "scheduler/simulate/csv.h"

namespace tide::simulate {
namespace {

enum Field {
  kId,
  kTeam,
  kSubmit,
  kDuration,
  kGpus,
  kMinGpus,
  kPart,
  kModel,
  kIterations,
  kIterationMs,
  kBatch,
  kDeadline,
  kEstimate,
  kFields
};

struct Column {
  Field field;
  const char* name;
  bool needed;
  std::array<const char*, 2> also = {};  // what others call it
};
constexpr Column kColumns[] = {{kId, "job_id", true, {"id", "job"}},
                               {kTeam, "user_or_team", false, {"team", "user"}},
                               {kSubmit, "submit_s", true, {"submit"}},
                               {kDuration, "duration_s", true, {"duration", "duration_s_isolated_at_requested_config"}},
                               {kGpus, "gpus_requested", true, {"gpus"}},
                               {kMinGpus, "min_gpus", false},
                               {kPart, "queue_vc_trace", false, {"workload"}},
                               {kModel, "model_name", false, {"application", "model_name_GENERATED"}},
                               {kIterations, "iterations", false, {"num_iteration_GENERATED"}},
                               {kIterationMs, "iteration_time_ms", false},
                               {kBatch, "batch_size", false, {"batch_size_GENERATED"}},
                               {kDeadline, "deadline_s", false, {"deadline_s_GENERATED"}},
                               {kEstimate, "estimate_s", false}};

bool has_name(const Column& column, std::string_view name) {
  if (name == column.name) return true;
  return std::any_of(column.also.begin(), column.also.end(), [&](const char* n) { return n != nullptr && name == n; });
}

class Reader {
 public:
  Reader(std::string path, const TraceOptions& options) : path_(std::move(path)), options_(options) {}

  bool header(const std::string& line) {
    std::vector<std::string> names;
    if (!split_row(line, &names)) return error(1, "a quote that does not end");
    columns_ = names.size();
    at_.fill(SIZE_MAX);
    for (const Column& column : kColumns) {
      for (size_t i = 0; i < names.size(); ++i) {
        if (!has_name(column, names[i])) continue;
        if (at_[column.field] != SIZE_MAX) return error(1, std::string("two columns for ") + column.name);
        at_[column.field] = i;
      }
      if (column.needed && at_[column.field] == SIZE_MAX) {
        return error(1, std::string("no column '") + column.name +
                            "'; a trace needs job_id, submit_s, duration_s, gpus_requested in its first line");
      }
    }
    return true;
  }

  void row(uint32_t line, std::string_view text) {
    if (!split_row(text, &fields_)) return wrong(line, "a quote that does not end");
    if (fields_.size() != columns_) {
      return wrong(line, format("%zu fields; the first line has %zu", fields_.size(), columns_));
    }
    Job job;
    job.line = line;
    if (!read(line, &job)) return;
    const std::string& name = field(options_.by_team ? kTeam : kPart);
    Part& part = parts_[name];
    if (part.trace.jobs.empty()) order_.push_back(name);
    if (!fits(line, job, part)) return;
    part.last_s = std::max(part.last_s, job.submit_s);
    part.last_line = line;
    part.trace.jobs.push_back(std::move(job));
  }

  TraceFile finish() {
    TraceFile file;
    file.wrong_rows = wrong_;
    file.errors = std::move(errors_);
    if (!file.errors.empty() && (!options_.skip_bad || fatal_)) return file;
    for (const std::string& name : order_) {
      Part& part = parts_[name];
      if (part.trace.jobs.empty()) continue;
      part.trace.name = name;
      std::stable_sort(part.trace.jobs.begin(), part.trace.jobs.end(),
                       [](const Job& a, const Job& b) { return a.submit_s < b.submit_s; });
      file.parts.push_back(std::move(part.trace));
    }
    if (file.parts.empty()) file.errors.push_back({path_, 0, "has no jobs"});
    return file;
  }

  bool error(uint32_t line, const std::string& message) {
    fatal_ = true;
    errors_.push_back({path_, line, message});
    return false;
  }

 private:
  struct Part {
    Trace trace;
    double last_s = 0;
    uint32_t last_line = 0;
    std::unordered_set<std::string> ids;
  };

  const std::string& field(Field field) const { return at_[field] == SIZE_MAX ? kEmpty : fields_[at_[field]]; }

  void wrong(uint32_t line, const std::string& message) {
    ++wrong_;
    if (errors_.size() < kTraceErrorsMax) errors_.push_back({path_, line, message});
  }

  bool read(uint32_t line, Job* job) {
    job->id = field(kId);
    job->team = field(kTeam);
    job->model = field(kModel);
    if (job->id.empty()) return wrong(line, "job_id is empty"), false;
    return seconds(line, kSubmit, 0, &job->submit_s) && seconds(line, kDuration, 1e-9, &job->duration_s) &&
           count(line, kGpus, &job->gpus) && count(line, kMinGpus, &job->min_gpus) && training(line, job);
  }

  const char* name(Field field) const {
    return std::find_if(std::begin(kColumns), std::end(kColumns), [&](const Column& c) { return c.field == field; })
        ->name;
  }

  bool seconds(uint32_t line, Field which, double least, double* value) {
    const std::string& text = field(which);
    if (text.empty()) return wrong(line, std::string(name(which)) + " is empty"), false;
    if (!parse_number(text, value) || !std::isfinite(*value) || *value < least || *value > 1e12) {
      const char* what = least > 0 ? "' is no time above 0 in seconds" : "' is no time in seconds";
      return wrong(line, std::string(name(which)) + " '" + text + what), false;
    }
    return true;
  }

  bool count(uint32_t line, Field which, uint32_t* value) {
    const std::string& text = field(which);
    if (which == kMinGpus && text.empty()) return true;
    if (!parse_number(text, value) || *value == 0 || *value > kJobGpusMax) {
      return wrong(line, format("%s '%s' is no whole number from 1 to %u", name(which), text.c_str(), kJobGpusMax)),
             false;
    }
    return true;
  }

  bool training(uint32_t line, Job* job) {
    if (!field(kIterations).empty() && !parse_number(field(kIterations), &job->iterations)) {
      return wrong(line, "iterations '" + field(kIterations) + "' is no whole number"), false;
    }
    if (!field(kBatch).empty() && !parse_number(field(kBatch), &job->batch_size)) {
      return wrong(line, "batch_size '" + field(kBatch) + "' is no whole number"), false;
    }
    if (!field(kDeadline).empty()) {
      if (!seconds(line, kDeadline, 0, &job->deadline_s)) return false;
      if (job->deadline_s <= job->submit_s) return wrong(line, "deadline_s is not after submit_s"), false;
    }
    if (!field(kEstimate).empty() && !seconds(line, kEstimate, 1e-9, &job->estimate_s)) return false;
    if (field(kIterationMs).empty()) return true;
    return seconds(line, kIterationMs, 0, &job->iteration_ms);
  }

  // Beside the rows before it.
  bool fits(uint32_t line, const Job& job, Part& part) {
    if (job.min_gpus > job.gpus) {
      return wrong(line, format("min_gpus %u is more than its %u GPUs", job.min_gpus, job.gpus)), false;
    }
    if (part.trace.jobs.size() >= kTraceJobsMax) return wrong(line, "more jobs than a trace may have"), false;
    const double jump = job.submit_s - part.last_s;
    const bool first = part.trace.jobs.empty();
    if (!first && jump < 0 && !options_.sort) {
      return wrong(line, format("the clock goes back: submit_s %.15g is before the %.15g of line %u (--sort puts such "
                                "rows in order)",
                                job.submit_s, part.last_s, part.last_line)),
             false;
    }
    if (!first && jump > kClockJumpMax_s) {
      return wrong(line, format("the clock jumps by %.0f days from line %u", jump / 86400, part.last_line)), false;
    }
    if (!part.ids.insert(job.id).second) return wrong(line, "there is a job '" + job.id + "' already"), false;
    return true;
  }

  static const std::string kEmpty;

  std::string path_;
  TraceOptions options_;
  size_t columns_ = 0;
  std::array<size_t, kFields> at_ = {};
  std::vector<std::string> fields_;
  std::map<std::string, Part> parts_;
  std::vector<std::string> order_;
  std::vector<TraceError> errors_;
  uint64_t wrong_ = 0;
  bool fatal_ = false;  // nothing of the file can be used
};

const std::string Reader::kEmpty;

}  // namespace

std::string TraceError::text() const {
  return line == 0 ? path + ": " + message : format("%s:%u: %s", path.c_str(), line, message.c_str());
}

TraceFile parse_trace(const std::string& text, const std::string& path, const TraceOptions& options) {
  Reader reader(path, options);
  std::string_view rest(text);
  if (rest.substr(0, 3) == "\xEF\xBB\xBF") rest.remove_prefix(3);
  if (rest.empty()) {
    reader.error(0, "is empty; a trace is a CSV with a first line that names its columns");
    return reader.finish();
  }
  for (uint32_t number = 1; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (number == 1) {
      if (!reader.header(std::string(line))) break;
    } else if (!line.empty()) {
      reader.row(number, line);
    }
  }
  return reader.finish();
}

TraceFile read_trace(const std::string& path, const TraceOptions& options) {
  std::string text;
  if (const std::string failed = read_whole(path, &text); !failed.empty()) {
    TraceFile file;
    file.errors.push_back({path, 0, failed});
    return file;
  }
  return parse_trace(text, path, options);
}

}  // namespace tide::simulate
