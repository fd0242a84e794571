#include "scheduler/config.h"

#include <stdio.h>

#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"

namespace tide::cli {
namespace {

constexpr size_t kPieceBytes = 32 << 10;  // of a message

int check(const std::string& file) {
  sched::PoolConfig read;
  const auto errors = sched::read_config(file, &read);
  for (const sched::ConfigError& error : errors) fprintf(stderr, "%s\n", error.text().c_str());
  if (!errors.empty()) return kFailed;
  printf("%s: ok\n", file.c_str());
  return kOk;
}

std::string pause_text(control::Touched::Reader job) {
  const std::string source = job.getSource();
  if (job.getPauseMs() < 0) return "pause " + source;
  if (job.getPauseMs() == 0) return source;
  return format("pause about %.0f ms, ", job.getPauseMs()) + source;
}

void print_json(control::ConfigOutcome::Reader outcome, bool dry_run) {
  Json json;
  const auto texts = [&](const char* name, capnp::List<capnp::Text>::Reader list) {
    json.key(name).list();
    for (const auto text : list) json.text(text);
    json.end();
  };
  json.object().add("applied", !dry_run && outcome.getErrors().size() == 0);
  texts("errors", outcome.getErrors());
  texts("changes", outcome.getChanges());
  texts("restart", outcome.getRestart());
  json.key("jobs").list();
  for (const auto job : outcome.getTouched()) {
    json.object().add("job", std::string(job.getJob())).add("what", std::string(job.getWhat()));
    if (job.getPauseMs() >= 0) json.add("pause_ms", job.getPauseMs());
    json.add("source", std::string(job.getSource())).end();
  }
  json.end().add("kept_in", std::string(outcome.getKeptIn())).end().print();
}

void print(control::ConfigOutcome::Reader outcome, bool dry_run) {
  const auto changes = outcome.getChanges(), restart = outcome.getRestart();
  if (changes.size() + restart.size() == 0) puts("nothing is different");
  for (const auto line : changes) printf("%s\n", line.cStr());
  for (const auto line : restart) printf("%s\n", line.cStr());
  const auto touched = outcome.getTouched();
  if (touched.size() == 0) {
    printf("%s no job\n", dry_run ? "it would touch" : "it touches");
  } else {
    printf("%s %u job%s (an estimate, of this moment):\n", dry_run ? "it would touch" : "it touches", touched.size(),
           touched.size() == 1 ? "" : "s");
  }
  for (const auto job : touched)
    printf("  job %s: %s; %s\n", job.getJob().cStr(), job.getWhat().cStr(), pause_text(job).c_str());
  if (dry_run) {
    puts("nothing was changed");
  } else {
    printf("applied; kept in %s\n", outcome.getKeptIn().cStr());
  }
}

Outcome send(Asker& asker, const std::string& text, control::Draft::Client& draft) {
  for (size_t at = 0; at < text.size(); at += kPieceBytes) {
    auto request = draft.addRequest();
    request.setText(text.substr(at, kPieceBytes));
    kj::Maybe<capnp::Response<control::Draft::AddResults>> added;
    if (const Outcome outcome = asker.ask(request.send(), &added); !outcome.ok()) return outcome;
  }
  return {};
}

int apply(const Options& options) {
  const std::string file = options.words()[1];
  const bool dry_run = options.has("dry-run");
  std::string text;
  const auto unreadable = sched::read_config_text(file, &text);
  if (!unreadable.empty()) return fail(unreadable[0].text());
  if (text.find('\0') != std::string::npos) return fail(file + " is no text");
  Asker asker;
  Outcome outcome = asker.connect(options);
  if (!outcome.ok()) return fail(outcome.message());
  auto draft = asker.pool().configureRequest().send().getDraft();
  outcome = send(asker, text, draft);
  kj::Maybe<capnp::Response<control::Draft::ApplyResults>> answer;
  if (outcome.ok()) {
    auto request = draft.applyRequest();
    request.setFile(file);
    request.setDryRun(dry_run);
    outcome = asker.ask(request.send(), &answer);
  }
  if (!outcome.ok()) return fail(outcome.message());
  const auto got = KJ_ASSERT_NONNULL(answer).getOutcome();
  if (options.has("json")) {
    print_json(got, dry_run);
    return got.getErrors().size() == 0 ? kOk : kFailed;
  }
  for (const auto error : got.getErrors()) fprintf(stderr, "%s\n", error.cStr());
  if (got.getErrors().size() != 0) {
    fputs("tide: nothing was changed\n", stderr);
    return kFailed;
  }
  print(got, dry_run);
  return kOk;
}

}  // namespace

int config(const Words& words) {
  constexpr const char* kHelp =
      "usage: tide config check FILE\n"
      "       tide config apply FILE [--dry-run] [--json]\n"
      "       tide config import --from kai|runai FILE\n\n"
      "check: lists everything that is wrong in a pool.toml, with line, column and a hint.\n"
      "apply: makes it the configuration of a pool that runs: turns, queues and labels count at once, and what needs "
      "a\n"
      "restart is said. It becomes the scheduler's own file; the one before is kept beside it, as FILE.before. A file\n"
      "with errors changes nothing. --dry-run: only says what would change, which jobs it would touch, and how long "
      "each\n"
      "would stand still, as far as that is known from earlier moves.\n"
      "import: prints another scheduler's queues as a pool.toml.\n";
  if (!words.empty() && words[0] == "import") return config_import({words.begin() + 1, words.end()});
  Options options;
  if (!options.parse(words, {{"json", 0, false}, {"dry-run", 0, false}}, kHelp)) return options.status();
  const bool two = options.words().size() == 2;
  const bool checks = two && options.words()[0] == "check", applies = two && options.words()[0] == "apply";
  if (!checks && !applies) return options.usage_error("expects: check FILE, or apply FILE");
  if (checks && (options.has("dry-run") || options.has("json")))
    return options.usage_error("--dry-run and --json are for apply");
  return checks ? check(options.words()[1]) : apply(options);
}

}  // namespace tide::cli
