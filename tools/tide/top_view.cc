#include "tools/tide/top_view.h"

#include <algorithm>

#include "base/log.h"
#include "tools/tide/options.h"
#include "tools/tide/show.h"

namespace tide::cli {
namespace {

using Top = control::Pool::TopResults::Reader;

// A column; the less it matters the sooner it goes where there is no room.
struct Column {
  const char* title;
  uint32_t width;
  bool left;
  uint32_t least_columns;  // of the terminal
};

using Row = std::vector<std::string>;

std::string line_of(const std::vector<Column>& columns, const Row& row, uint32_t width) {
  std::string line;
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column& column = columns[i];
    if (column.least_columns > width) continue;
    std::string cell = fitting(row[i], column.width);
    uint32_t shown = 0;
    for (const char c : cell) shown += (uint8_t(c) & 0xc0) != 0x80 ? 1 : 0;
    const std::string gap(column.width - std::min(shown, column.width), ' ');
    line += (line.empty() ? "" : " ") + (column.left ? cell + gap : gap + cell);
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return fitting(line, width);
}

// With its head; at most `room` lines.
void add_part(const std::vector<Column>& columns, const std::vector<Row>& rows, size_t total, const char* what,
              uint32_t width, size_t room, std::vector<std::string>* lines) {
  if (room < 2) return;
  Row head;
  for (const Column& column : columns) head.push_back(column.title);
  lines->push_back(line_of(columns, head, width));
  const bool cut = total > room - 1 || total > rows.size();
  const size_t shown = std::min(rows.size(), cut ? room - 2 : room - 1);
  for (size_t i = 0; i < shown; ++i) lines->push_back(line_of(columns, rows[i], width));
  if (cut) lines->push_back(fitting(format("  and %zu more %s", total - shown, what), width));
}

std::string percent(uint32_t permille) { return format("%u%%", (permille + 5) / 10); }

std::string bar(uint32_t permille) {
  constexpr uint32_t kBar = 10;
  const uint32_t full = std::min(kBar, (permille * kBar + 500) / 1000);
  return std::string(full, '#') + std::string(kBar - full, '.');
}

std::string gib(uint64_t bytes) { return format("%.1f", double(bytes) / double(1u << 30)); }

std::vector<Row> gpu_rows(Top top) {
  std::vector<Row> rows;
  for (const auto gpu : top.getGpus()) {
    const std::string memory =
        (gpu.getHeard() ? gib(gpu.getUsedBytes()) : std::string("?")) + "/" + gib(gpu.getMemoryBytes());
    const std::string jobs = gpu.getJobs().size() != 0 ? gpu.getJobs().cStr() : gpu.getUsable() ? "-" : "not usable";
    rows.push_back({format("%s/%u", gpu.getServer().cStr(), gpu.getGpu()), gpu.getModel().cStr(),
                    gpu.getHeard() ? percent(gpu.getBusyPermille()) : "?", bar(gpu.getBusyPermille()), memory, jobs});
  }
  return rows;
}

std::string gpus_of(control::TopJob::Reader job) {
  if (job.getPart() != 1000) return format("%g", double(job.getPart()) / 1000);
  return format("%u/%u", job.getPhysicalGpus(), job.getVgpus());
}

// Short: days, hours, minutes, seconds, the two largest that count.
std::string short_time(uint64_t ms) {
  const uint64_t s = ms / 1000;
  if (s < 60) return format("%lus", (unsigned long)s);
  if (s < 3600) return format("%lum%02lus", (unsigned long)(s / 60), (unsigned long)(s % 60));
  if (s < 86'400) return format("%luh%02lum", (unsigned long)(s / 3600), (unsigned long)(s / 60 % 60));
  return format("%lud%02luh", (unsigned long)(s / 86'400), (unsigned long)(s / 3600 % 24));
}

std::vector<Row> job_rows(Top top) {
  std::vector<Row> rows;
  for (const auto job : top.getJobs()) {
    const bool running = job.getState() == control::JobState::RUNNING;
    const uint64_t until = job.getStartedMs() != 0 ? job.getStartedMs() : top.getNowMs();
    const uint64_t wait = until > job.getSubmittedMs() ? until - job.getSubmittedMs() : 0;
    rows.push_back({job.getId().cStr(), job.getName().cStr(), job.getQueue().cStr(), state_name(job.getState()),
                    gpus_of(job), running ? percent(job.getBusyPermille()) : "-",
                    running ? gib(job.getUsedBytes()) : "-", short_time(wait), job.getUser().cStr()});
  }
  return rows;
}

std::vector<Row> queue_rows(Top top) {
  std::vector<Row> rows;
  for (const auto queue : top.getQueues()) {
    const auto gpus = [](uint64_t thousandths) { return format("%g", double(thousandths) / 1000); };
    rows.push_back({queue.getName().cStr(), gpus(queue.getAllocated()), gpus(queue.getFairShare()),
                    std::to_string(queue.getRunningJobs()), std::to_string(queue.getWaitingJobs())});
  }
  return rows;
}

std::string head_of(Top top) {
  uint32_t usable = 0, held = 0, heard = 0;
  uint64_t busy = 0;
  for (const auto gpu : top.getGpus()) {
    usable += gpu.getUsable() ? 1 : 0;
    held += gpu.getJobs().size() != 0 ? 1 : 0;
    heard += gpu.getHeard() ? 1 : 0;
    busy += gpu.getBusyPermille();
  }
  return format("GPUs %u: %u held, %u usable, %s busy   jobs %u running, %u waiting, %u suspended",
                top.getGpus().size(), held, usable, heard == 0 ? "?" : percent(uint32_t(busy / heard)).c_str(),
                top.getRunning(), top.getWaiting(), top.getSuspended());
}

}  // namespace

std::string fitting(const std::string& text, uint32_t columns) {
  std::string out;
  uint32_t shown = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t c = uint8_t(text[i]), then = i + 1 < text.size() ? uint8_t(text[i + 1]) : 0;
    const bool begins = (c & 0xc0) != 0x80;
    if (begins && shown == columns) break;
    shown += begins ? 1 : 0;
    const bool high = c == 0xc2 && then >= 0x80 && then < 0xa0;  // U+0080 to U+009F control terminals, too
    out += c < 0x20 || c == 0x7f || high ? '?' : text[i];
    if (high) ++i;
  }
  return out;
}

std::vector<std::string> top_lines(Top top, const TopSize& size) {
  const uint32_t width = std::max(size.columns, 1u);
  const std::vector<Row> gpus = gpu_rows(top), jobs = job_rows(top), queues = queue_rows(top);
  const size_t all_jobs = top.getRunning() + top.getWaiting() + top.getSuspended();
  size_t room_gpus = gpus.size() + 1, room_jobs = jobs.size() + 2, room_queues = queues.size() + 1;
  if (size.rows != 0) {
    // The head and the empty lines; then queues have what is left of a sixth, GPUs of a third, jobs of all.
    const size_t room = size.rows > 4 ? size.rows - 4 : 0;
    room_queues = std::min(room_queues, std::max<size_t>(room / 6, 2));
    room_gpus = std::min(room_gpus, std::max<size_t>(room / 3, 2));
    const size_t left = room > room_queues + room_gpus ? room - room_queues - room_gpus : 0;
    const size_t spare = left > room_jobs ? left - room_jobs : 0;
    room_gpus = std::min(gpus.size() + 1, room_gpus + spare);
    room_jobs = left;
  }
  std::vector<std::string> lines = {fitting(head_of(top), width), ""};
  add_part({{"GPU", 16, true, 0},
            {"MODEL", 22, true, 90},
            {"BUSY", 5, false, 0},
            {"", 10, true, 70},
            {"GIB", 12, false, 40},
            {"JOB", 24, true, 30}},
           gpus, gpus.size(), "GPUs", width, room_gpus, &lines);
  lines.push_back("");
  add_part({{"JOB", 8, true, 0},
            {"NAME", 18, true, 50},
            {"QUEUE", 12, true, 64},
            {"STATE", 9, true, 20},
            {"GPUS", 6, false, 27},
            {"BUSY", 5, false, 33},
            {"GIB", 7, false, 76},
            {"WAIT", 7, false, 58},
            {"USER", 12, true, 100}},
           jobs, std::max(all_jobs, jobs.size()), "jobs", width, room_jobs, &lines);
  lines.push_back("");
  add_part({{"QUEUE", 20, true, 0},
            {"HAS", 7, false, 30},
            {"OWED", 7, false, 40},
            {"RUNNING", 8, false, 50},
            {"WAITING", 8, false, 0}},
           queues, queues.size(), "queues", width, room_queues, &lines);
  if (size.rows != 0 && lines.size() > size.rows) lines.resize(size.rows);
  return lines;
}

}  // namespace tide::cli
