#include <stdio.h>

#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/servers.h"
#include "tools/tide/show.h"

namespace tide::cli {
namespace {

// "9.0" of 90; empty: not known.
std::string compute_text(uint32_t compute) {
  return compute == 0 ? "" : std::to_string(compute / 10) + "." + std::to_string(compute % 10);
}

void print_json(capnp::List<control::PoolGpu>::Reader list) {
  Json json;
  json.list();
  for (const auto gpu : list) {
    const auto info = gpu.getInfo();
    json.object().add("server", std::string(gpu.getServer())).add("index", info.getIndex());
    json.add("name", std::string(info.getName()))
        .add("memory_bytes", info.getMemoryBytes())
        .add("uuid", std::string(info.getUuid()));
    json.add("online", gpu.getOnline()).add("healthy", info.getHealthy()).add("software", info.getSoftware());
    json.add("draining", gpu.getDraining()).add("compute_capability", compute_text(info.getCompute()));
    json.key("labels").list();
    for (const auto label : gpu.getLabels()) json.text(label);
    json.end().add("switch", std::string(gpu.getNetworkSwitch()));
    json.add("job", std::string(gpu.getJob())).key("vgpus").list();
    for (const uint32_t v : gpu.getVgpus()) json.number(uint64_t(v));
    json.end().key("shares").list();
    for (const auto share : gpu.getShares()) {
      json.object().add("job", std::string(share.getJob())).add("part", share.getPart() / 1000.0).key("vgpus").list();
      for (const uint32_t v : share.getVgpus()) json.number(uint64_t(v));
      json.end().end();
    }
    json.end().add("free_part", part_left(gpu) / 1000.0).end();
  }
  json.end().print();
}

}  // namespace

int gpus(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide gpus [--json]\n\n"
      "Physical GPUs of the pool, and which job's virtual GPUs each serves (of jobs that share one, also the part that "
      "each\n"
      "has); below, where suspended jobs are kept, and what pool.toml says of servers (labels, switch). The GPUs of a\n"
      "server that is being drained are `draining`, or `drained` when nothing is on them.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(0, "")) return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::GpusResults>> answer;
  if (outcome.ok()) outcome = asker.ask(asker.pool().gpusRequest().send(), &answer);
  kj::Maybe<capnp::Response<control::Pool::JobsResults>> jobs;
  if (outcome.ok() && !options.has("json")) outcome = asker.ask(asker.pool().jobsRequest().send(), &jobs);
  kj::Maybe<capnp::Response<control::Pool::ServersResults>> servers;
  if (outcome.ok() && !options.has("json")) outcome = asker.ask(asker.pool().serversRequest().send(), &servers);
  if (!outcome.ok()) return fail(outcome.message());
  const auto list = KJ_ASSERT_NONNULL(answer).getGpus();
  if (options.has("json")) {
    print_json(list);
    return kOk;
  }
  if (list.size() == 0) {
    puts("no GPUs: no server has registered; the agents' logs say why");
    return kOk;
  }
  printf("%-16s %-28s %-10s %-8s %-5s %s\n", "GPU", "NAME", "MEMORY", "STATE", "JOB", "VGPUS");
  for (const auto gpu : list) {
    const auto info = gpu.getInfo();
    const std::string id = std::string(gpu.getServer()) + "/" + std::to_string(info.getIndex());
    const char* state = !gpu.getOnline()           ? "offline"
                        : !info.getHealthy()       ? "sick"
                        : gpu.getJob().size() == 0 ? "free"
                                                   : "busy";
    std::string vgpus;
    for (const uint32_t v : gpu.getVgpus()) vgpus += (vgpus.empty() ? "" : ",") + std::to_string(v);
    if (part_left(gpu) != 0 && gpu.getJob().size() != 0) state = "shared";
    if (gpu.getDraining() && gpu.getOnline()) state = gpu.getJob().size() != 0 ? "draining" : "drained";
    printf("%-16s %-28s %-10s %-8s %-5s %s\n", id.c_str(), info.getName().cStr(),
           size_text(info.getMemoryBytes()).c_str(), state, gpu.getJob().size() == 0 ? "-" : jobs_text(gpu).c_str(),
           vgpus.c_str());
  }
  for (const auto job : KJ_ASSERT_NONNULL(jobs).getJobs()) {
    const std::string where = kept_text(job);
    if (!where.empty()) printf("job %s is on no GPU: %s\n", job.getId().cStr(), where.c_str());
  }
  for (const auto server : KJ_ASSERT_NONNULL(servers).getServers()) {
    const std::string said = labels_text(server);
    if (!said.empty()) printf("server %s\n", said.c_str());
  }
  return kOk;
}

}  // namespace tide::cli
