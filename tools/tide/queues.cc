#include <stdio.h>

#include <map>
#include <vector>

#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/reservations.h"

namespace tide::cli {
namespace {

using Answer = capnp::Response<control::Pool::QueuesResults>;

double gpus_of(uint64_t thousandths) { return double(thousandths) / 1000; }
std::string text_of(uint64_t thousandths) { return format("%g", gpus_of(thousandths)); }
bool has_limit(control::QueueInfo::Reader queue) { return queue.getLimit() != UINT64_MAX; }

void add_models(Json& json, control::QueueInfo::Reader queue) {
  json.key("models").list();
  for (const auto model : queue.getModels()) {
    json.object().add("model", std::string(model.getModel())).add("quota", model.getQuota());
    if (model.getLimit() != UINT32_MAX) json.add("limit", model.getLimit());
    json.add("allocated", model.getHeld()).add("usable", model.getThere()).end();
  }
  json.end();
}

// "H200: 4 of quota 4, limit 8; A100: ..." where the file says something of models.
std::string models_of(control::QueueInfo::Reader queue) {
  std::string text;
  for (const auto model : queue.getModels()) {
    text += (text.empty() ? "" : "; ") + std::string(model.getModel()) +
            format(": has %u, quota %u", model.getHeld(), model.getQuota());
    if (model.getLimit() != UINT32_MAX) text += format(", limit %u", model.getLimit());
  }
  return text;
}

void print_json(const Answer& answer, Reservations reservations) {
  Json json;
  json.object().add("half_life_s", double(answer.getHalfLifeMs()) / 1000).key("queues").list();
  for (const auto queue : answer.getQueues()) {
    json.object()
        .add("name", std::string(queue.getName()))
        .add("parent", std::string(queue.getParent()))
        .add("leaf", queue.getLeaf())
        .add("in_file", queue.getInFile())
        .add("quota", gpus_of(queue.getQuota()));
    if (has_limit(queue)) json.add("limit", gpus_of(queue.getLimit()));
    json.add("over_quota_weight", queue.getOverQuotaWeight())
        .add("priority", queue.getPriority())
        .add("preemptible", queue.getPreemptible())
        .add("fair_share", gpus_of(queue.getFairShare()))
        .add("allocated", gpus_of(queue.getAllocated()))
        .add("demand", gpus_of(queue.getDemand()))
        .add("running_jobs", queue.getRunningJobs())
        .add("waiting_jobs", queue.getWaitingJobs())
        .add("waiting_gpus", gpus_of(queue.getWaitingGpus()))
        .add("used_gpu_s", queue.getUsedGpuS())
        .add("used_part", queue.getUsedPart());
    add_models(json, queue);
    json.end();
  }
  json.end();
  add_reservations(json, reservations);
  json.end().print();
}

// The queues in the order of a tree that is read from the top, with how deep each is.
void walk(const std::multimap<std::string, control::QueueInfo::Reader>& children, const std::string& parent,
          uint32_t depth, std::vector<std::pair<control::QueueInfo::Reader, uint32_t>>* out) {
  const auto [first, last] = children.equal_range(parent);
  for (auto it = first; it != last; ++it) {
    out->emplace_back(it->second, depth);
    if (!it->second.getLeaf()) walk(children, it->second.getName(), depth + 1, out);
  }
}

std::string note_of(control::QueueInfo::Reader queue) {
  std::string note;
  const auto add = [&](const std::string& text) { note += (note.empty() ? "" : "; ") + text; };
  if (!queue.getInFile()) add("not in pool.toml: takes no new jobs");
  if (!queue.getPreemptible()) add("not preemptible");
  if (queue.getPriority() != 0) add(format("priority %d", queue.getPriority()));
  if (queue.getAllocated() > queue.getFairShare())
    add("borrows " + text_of(queue.getAllocated() - queue.getFairShare()));
  if (queue.getAllocated() < queue.getFairShare())
    add("is owed " + text_of(queue.getFairShare() - queue.getAllocated()));
  return note;
}

std::string waiting_of(control::QueueInfo::Reader queue) {
  if (queue.getWaitingJobs() == 0) return "-";
  return format("%u (%s)", queue.getWaitingJobs(), text_of(queue.getWaitingGpus()).c_str());
}

}  // namespace

int queues(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide queues [--json]\n\n"
      "The pool's queues, as pool.toml has them: what each is owed of the GPUs and what it has. In GPUs:\n"
      "  QUOTA      it gets these before anybody gets more than a quota\n"
      "  LIMIT      it never has more\n"
      "  WEIGHT     its part of what is left when all quotas are served\n"
      "  FAIR       what it is owed now, by all that and by what queues want and have had; who has less may take it\n"
      "             back from those that have more\n"
      "  HAS        what its jobs have\n"
      "  WAITING    its jobs that wait, and what they want\n"
      "  PAST       GPU-hours that it has had; half of them are forgotten in each half-life ([policy] half_life)\n"
      "Below a queue stands what it has of GPUs of one model, where pool.toml says something of that; below all of\n"
      "them the pool's reservations, whose GPUs count for no queue while these last: KEPT are kept for it now (others\n"
      "have the rest), USED are those that its jobs are on. `tide run --reservation NAME` uses one.\n"
      "Jobs are submitted to the innermost queues: `tide run --queue Q`.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(0, "")) return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<Answer> got;
  if (outcome.ok()) outcome = asker.ask(asker.pool().queuesRequest().send(), &got);
  kj::Maybe<capnp::Response<control::Pool::ReservationsResults>> reserved;
  if (outcome.ok()) outcome = asker.ask(asker.pool().reservationsRequest().send(), &reserved);
  if (!outcome.ok()) return fail(outcome.message());
  const Answer& answer = KJ_ASSERT_NONNULL(got);
  const Reservations reservations = KJ_ASSERT_NONNULL(reserved).getReservations();
  if (options.has("json")) {
    print_json(answer, reservations);
    return kOk;
  }
  std::multimap<std::string, control::QueueInfo::Reader> children;
  for (const auto queue : answer.getQueues()) children.emplace(queue.getParent().cStr(), queue);
  std::vector<std::pair<control::QueueInfo::Reader, uint32_t>> tree;
  walk(children, "", 0, &tree);
  printf("%-24s %7s %7s %7s %7s %7s %12s %10s\n", "QUEUE", "QUOTA", "LIMIT", "WEIGHT", "FAIR", "HAS", "WAITING",
         "PAST");
  for (const auto& [queue, depth] : tree) {
    const std::string name = std::string(size_t(depth) * 2, ' ') + queue.getName().cStr();
    printf("%-24s %7s %7s %7g %7s %7s %12s %10.1f  %s\n", name.c_str(), text_of(queue.getQuota()).c_str(),
           has_limit(queue) ? text_of(queue.getLimit()).c_str() : "-", queue.getOverQuotaWeight(),
           text_of(queue.getFairShare()).c_str(), text_of(queue.getAllocated()).c_str(), waiting_of(queue).c_str(),
           queue.getUsedGpuS() / 3600, note_of(queue).c_str());
    if (const std::string models = models_of(queue); !models.empty())
      printf("%s%s\n", std::string(size_t(depth) * 2 + 2, ' ').c_str(), models.c_str());
  }
  print_reservations(reservations);
  return kOk;
}

}  // namespace tide::cli
