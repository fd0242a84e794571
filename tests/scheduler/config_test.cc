#include "scheduler/config.h"

#include <gtest/gtest.h>

namespace tide::sched {
namespace {

std::vector<std::string> errors_of(const std::string& text) {
  PoolConfig config;
  std::vector<std::string> lines;
  for (const ConfigError& error : parse_config(text, "pool.toml", &config)) lines.push_back(error.text());
  return lines;
}

using Lines = std::vector<std::string>;

TEST(Config, what_is_written_is_read) {
  PoolConfig config;
  ASSERT_TRUE(
      parse_config("[pool]\nlisten = \"127.0.0.1:1\"\nstate = \"/var/lib/tide\"\n", "pool.toml", &config).empty());
  EXPECT_EQ(config.listen, "127.0.0.1:1");
  EXPECT_EQ(config.state, "/var/lib/tide");
}

TEST(Config, all_errors_at_once_with_line_column_and_hint) {
  EXPECT_EQ(errors_of("lisen = 1\n[pool]\nlisten = 7\nstat = \"x\"\n[[queue]]\nname = \"a\"\n"),
            (Lines{"pool.toml:1:1: unknown key 'lisen'; it belongs under [pool]",
                   "pool.toml:3:10: 'listen' must be text; write listen = \"...\"",
                   "pool.toml:4:1: unknown key 'stat' in [pool]; did you mean 'state'?",
                   "pool.toml:5:3: 'queue' is not available yet; leave it out; this version knows [pool] only"}));
}

TEST(Config, an_address_must_be_one) {
  EXPECT_EQ(errors_of("[pool]\nlisten = \"here\"\n"),
            (Lines{"pool.toml:2:10: 'here' is no address; write listen = \"127.0.0.1:7411\""}));
  EXPECT_EQ(errors_of("[pool]\nlisten = \"127.0.0.1:70000\"\n").size(), 1u);
}

TEST(Config, a_bad_file_changes_nothing) {
  PoolConfig config;
  config.state = "before";
  EXPECT_FALSE(parse_config("[pool]\nstate = \"x\"\nnonsense = 1\n", "pool.toml", &config).empty());
  EXPECT_EQ(config.state, "before");
  EXPECT_EQ(errors_of("[pool\n").size(), 1u);
  EXPECT_EQ(read_config("/nowhere/pool.toml", &config)[0].text(),
            "/nowhere/pool.toml: cannot be read: No such file or directory; check the path and its permissions");
}

}  // namespace
}  // namespace tide::sched
