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

TEST(Config, jobs_take_turns_as_it_is_written) {
  const auto turns = [](const char* way) {
    PoolConfig config;
    const std::string text = std::string("[pool]\nturns = \"") + way + "\"\n";
    return parse_config(text, "pool.toml", &config).empty() ? to_text(config.turns) : "no";
  };
  for (const char* way : {"off", "auto", "500ms", "30s", "10m", "2h"}) EXPECT_EQ(turns(way), way);
  EXPECT_EQ(turns("60s"), "1m");
  for (const char* way : {"", "on", "0s", "-1s", "5", "1.5s", "3 s", "9999999h"}) EXPECT_EQ(turns(way), "no") << way;
  EXPECT_FALSE(PoolConfig().turns.on);
  EXPECT_EQ(errors_of("[pool]\nturns = \"often\"\n"),
            (Lines{"pool.toml:2:9: 'often' is no way to take turns (off, auto, or how long each is); write turns = "
                   "\"auto\""}));
}

TEST(Config, all_errors_at_once_with_line_column_and_hint) {
  EXPECT_EQ(
      errors_of("lisen = 1\n[pool]\nlisten = 7\nstat = \"x\"\n[[queue]]\nname = \"a\"\n"),
      (Lines{"pool.toml:1:1: unknown key 'lisen'; it belongs under [pool]",
             "pool.toml:3:10: 'listen' must be text; write listen = \"...\"",
             "pool.toml:4:1: unknown key 'stat' in [pool]; did you mean 'state'?",
             "pool.toml:5:3: 'queue' is not available yet; leave it out; this version knows [pool] and [[server]] "
             "only"}));
}

TEST(Config, an_address_must_be_one) {
  EXPECT_EQ(errors_of("[pool]\nlisten = \"here\"\n"),
            (Lines{"pool.toml:2:10: 'here' is no address; write listen = \"127.0.0.1:7411\""}));
  EXPECT_EQ(errors_of("[pool]\nlisten = \"127.0.0.1:70000\"\n").size(), 1u);
}

TEST(Config, servers_are_what_their_agents_take) {
  PoolConfig config;
  ASSERT_TRUE(parse_config("[pool]\n[[server]]\nname = \"a\"\nsoftgpu_devices = 2\nsoftgpu_memory = \"2GiB\"\n"
                           "[[server]]\nname = \"b\"\nlisten = \"10.0.0.1:0\"\nimage_cache_mib = 0\n",
                           "pool.toml", &config)
                  .empty());
  ASSERT_EQ(config.servers.size(), 2u);
  using Settings = std::map<std::string, std::string>;
  EXPECT_EQ(config.servers[0].name, "a");
  EXPECT_EQ(config.servers[0].settings, (Settings{{"softgpu_devices", "2"}, {"softgpu_memory", "2GiB"}}));
  EXPECT_EQ(config.servers[1].settings, (Settings{{"listen", "10.0.0.1:0"}, {"image_cache_mib", "0"}}));
}

TEST(Config, servers_have_errors_with_line_column_and_hint) {
  EXPECT_EQ(errors_of("[[server]]\nname = \"a/b\"\nsoftgpu_devices = 65\nsoftgpu_memory = \"big\"\n"
                      "[[server]]\nimage_cache_mb = 7\nlisten = \"here\"\n"
                      "[[server]]\nname = \"x\"\nsoftgpu_devices = \"2\"\n[[server]]\nname = \"x\"\n"),
            (Lines{"pool.toml:2:8: 'a/b' is no name of 1 to 63 characters without '/'; write name = \"gpu1\"",
                   "pool.toml:3:19: '65' is no number from 1 to 64; write softgpu_devices = 1",
                   "pool.toml:4:18: 'big' is no size; write softgpu_memory = \"16GiB\"",
                   "pool.toml:5:1: a server without a name; write name = \"gpu1\"",
                   "pool.toml:6:1: unknown key 'image_cache_mb' in [[server]]; did you mean 'image_cache_mib'?",
                   "pool.toml:7:10: 'here' is no address; write listen = \"127.0.0.1:7411\"",
                   "pool.toml:10:19: 'softgpu_devices' must be a number; write softgpu_devices = 1",
                   "pool.toml:12:8: there are two servers 'x'; an agent takes the one of its name"}));
  EXPECT_EQ(errors_of("[server]\nname = \"a\"\n"),
            (Lines{"pool.toml:1:1: 'server' must be a list of tables; write [[server]] on a line of its own"}));
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

TEST(Config, the_record_may_be_in_etcd) {
  PoolConfig config;
  const std::string text = "[pool]\nstore = \"etcd://10.0.0.1:2379,10.0.0.2:2379/lab\"\n";
  EXPECT_TRUE(parse_config(text, "pool.toml", &config).empty());
  EXPECT_EQ(config.etcd.members, (std::vector<std::string>{"10.0.0.1:2379", "10.0.0.2:2379"}));
  EXPECT_EQ(config.etcd.root, "/lab/");
  for (const char* wrong :
       {"etcd://", "etcd://a", "etcd://a:1,", "etcd://a:1/", "etcd://a:1/b/c", "postgres://a:1", ""}) {
    EXPECT_FALSE(read_store(wrong, &config).ok()) << wrong;
  }
  EXPECT_TRUE(read_store("etcd://a:1", &config).ok());
  EXPECT_EQ(config.etcd.root, "/tide/");
  EXPECT_TRUE(check_store(config).ok());
  config.listen = "0.0.0.0:7411";
  EXPECT_FALSE(check_store(config).ok());
  EXPECT_TRUE(read_store("sqlite", &config).ok());
  EXPECT_TRUE(config.etcd.members.empty());
  EXPECT_TRUE(check_server_setting("scheduler", "10.0.0.1:7411,10.0.0.2:7411").ok());
  EXPECT_FALSE(check_server_setting("scheduler", "10.0.0.1:7411,nonsense").ok());
}

}  // namespace
}  // namespace tide::sched
