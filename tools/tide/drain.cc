// drain, undrain: a server without jobs, and back.

#include <stdio.h>

#include <map>

#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/servers.h"

namespace tide::cli {
namespace {

constexpr auto kLookPause = 200 * kj::MILLISECONDS;

struct Seen {
  capnp::MallocMessageBuilder message;  // a copy that outlives the answer
  control::ServerState::Reader state() { return message.getRoot<control::ServerState>().asReader(); }
};

Outcome look(Asker& asker, const std::string& name, Seen* seen) {
  kj::Maybe<capnp::Response<control::Pool::ServersResults>> answer;
  const Outcome outcome = asker.ask(asker.pool().serversRequest().send(), &answer);
  if (!outcome.ok()) return outcome;
  for (const auto server : KJ_ASSERT_NONNULL(answer).getServers()) {
    if (std::string(server.getName()) != name) continue;
    seen->message.setRoot(server);
    return {};
  }
  return Outcome::fail("server " + name + " is not in the pool any more, and not being drained");
}

bool any_leaves(control::ServerState::Reader server) {
  for (const auto left : server.getLeft()) {
    if (left.getDoing() == control::LeftDoing::LEAVES) return true;
  }
  return false;
}

// What has changed since the last look: one line for each.
class Progress {
 public:
  void show(control::ServerState::Reader server) {
    std::map<std::string, std::string> now;
    for (const auto left : server.getLeft()) now[left_name(left)] = left_text(left);
    for (const auto& [name, text] : now) {
      if (before_.count(name) == 0 || before_[name] != text) printf("  %s\n", text.c_str());
    }
    for (const auto& [name, text] : before_) {
      if (now.count(name) == 0) printf("  %s: gone\n", name.c_str());
    }
    before_ = std::move(now);
    fflush(stdout);
  }

 private:
  std::map<std::string, std::string> before_;
};

int conclude(control::ServerState::Reader server, bool json) {
  if (json) {
    Json out;
    add_server(out, server);
    out.print();
  }
  const bool empty = server.getLeft().size() == 0;
  if (json) return empty ? kOk : kFailed;
  const std::string name = server.getName();
  if (empty) {
    printf("server %s is drained: nothing of a job is on it, and nothing comes (`tide undrain %s`)\n", name.c_str(),
           name.c_str());
    return kOk;
  }
  fprintf(stderr, "tide: server %s is not empty:\n", name.c_str());
  for (const auto left : server.getLeft()) {
    fprintf(stderr, "  %s\n", left_text(left).c_str());
    if (left.getNext().size() != 0) fprintf(stderr, "    next: %s\n", left.getNext().cStr());
  }
  fprintf(stderr,
          "  It goes on being drained; `tide drain %s --wait` waits for the end, `tide status` says how far it is\n",
          name.c_str());
  return kFailed;
}

Outcome ask_to_drain(Asker& asker, const std::string& name, bool on, Seen* seen) {
  kj::Maybe<capnp::Response<control::Pool::DrainResults>> answer;
  auto request = asker.pool().drainRequest();
  request.setServer(name);
  request.setDraining(on);
  const Outcome outcome = asker.ask(request.send(), &answer);
  if (outcome.ok()) seen->message.setRoot(KJ_ASSERT_NONNULL(answer).getServer());
  return outcome;
}

}  // namespace

int drain(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide drain SERVER [--wait] [--json]\n\n"
      "Moves everything off a server, live: what runs there goes to GPUs elsewhere, what is kept there for suspended\n"
      "jobs, and checkpoints, to other servers. It gets nothing new until `tide undrain`, also after the scheduler or\n"
      "its agent was restarted. Returns when nothing is left (status 0), or when what is left cannot leave now: that "
      "is\n"
      "named, with the reason and what helps (status 1), and leaves by itself when it can. --wait: waits for that.\n";
  if (!options.parse(words, {{"json", 0, false}, {"wait", 0, false}}, kHelp) || !options.expect_words(1, "one server"))
    return options.status();
  const std::string name = options.words()[0];
  Asker asker;
  Outcome outcome = asker.connect(options);
  auto seen = std::make_unique<Seen>();
  if (outcome.ok()) outcome = ask_to_drain(asker, name, true, seen.get());
  Progress progress;
  while (outcome.ok()) {
    const auto server = seen->state();
    if (!options.has("json")) progress.show(server);
    if (server.getDrainingMs() == 0) return fail("somebody has ended the drain of server " + name);
    if (server.getLeft().size() == 0 || (!any_leaves(server) && !options.has("wait")))
      return conclude(server, options.has("json"));
    asker.io().provider->getTimer().afterDelay(kLookPause).wait(asker.io().waitScope);
    seen = std::make_unique<Seen>();
    outcome = look(asker, name, seen.get());
  }
  return fail(outcome.message());
}

int undrain(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide undrain SERVER [--json]\n\n"
      "Ends `tide drain`: the server takes jobs again. What has left it comes back only where the pool needs it.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(1, "one server"))
    return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  Seen seen;
  if (outcome.ok()) outcome = ask_to_drain(asker, options.words()[0], false, &seen);
  if (!outcome.ok()) return fail(outcome.message());
  if (options.has("json")) {
    Json out;
    add_server(out, seen.state());
    out.print();
  } else {
    printf("server %s takes jobs%s\n", seen.state().getName().cStr(),
           seen.state().getOnline() ? "" : " when it is in the pool again");
  }
  return kOk;
}

}  // namespace tide::cli
