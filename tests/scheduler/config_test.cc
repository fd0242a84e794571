#include "scheduler/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

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
  EXPECT_EQ(errors_of("lisen = 1\n[pool]\nlisten = 7\nstat = \"x\"\n[auth]\nname = \"a\"\n"),
            (Lines{"pool.toml:1:1: unknown key 'lisen'; it belongs under [pool]",
                   "pool.toml:3:10: 'listen' must be text; write listen = \"...\"",
                   "pool.toml:4:1: unknown key 'stat' in [pool]; did you mean 'state'?",
                   "pool.toml:5:2: 'auth' is not available yet; leave it out; this version knows [pool], [policy], "
                   "[history], [price], [[queue]], [[reservation]] and [[server]] only"}));
}

TEST(Config, prices_are_by_words_of_the_gpus_names) {
  PoolConfig config;
  ASSERT_EQ(errors_of("[price]\ndefault = 2.5\ncurrency = \"EUR\"\n[price.model]\nH200 = 4\n\"H100 PCIe\" = 3.25\n"),
            Lines());
  ASSERT_TRUE(
      parse_config("[price]\ndefault = 2.5\n[price.model]\nH100 = 4\n\"H100 PCIe\" = 3.25\n", "pool.toml", &config)
          .empty());
  EXPECT_EQ(config.price.of("NVIDIA H100 80GB HBM3"), 4.0);
  EXPECT_EQ(config.price.of("NVIDIA H100 PCIe"), 3.25) << "the longest counts";
  EXPECT_EQ(config.price.of("NVIDIA A100"), 2.5);
  EXPECT_FALSE(PriceConfig().any());
  EXPECT_FALSE(PriceConfig().of("NVIDIA A100").has_value());
  EXPECT_EQ(errors_of("[price]\ndefault = -1\ncurency = \"EUR\"\n[price.model]\nH200 = \"much\"\n\"\" = 1\nA100 = "
                      "-3.5\n"),
            (Lines{"pool.toml:2:11: '-1' is no price of a GPU-hour, from 0 to 1000000; write default = 2.5",
                   "pool.toml:3:1: unknown key 'curency' in [price]; did you mean 'currency'?",
                   "pool.toml:5:8: the price of 'H200' must be a number; write H200 = 4.0",
                   "pool.toml:6:1: '' cannot be words of a GPU's name; write H200 = 4.0",
                   "pool.toml:7:8: '-3.5' is no price of a GPU-hour, from 0 to 1000000; write A100 = 4.0"}));
  EXPECT_EQ(errors_of("price = 3\n"),
            (Lines{"pool.toml:1:9: 'price' must be a table; write [price] on a line of its own"}));
  EXPECT_EQ(errors_of("[price]\nmodel = 3\n"),
            (Lines{"pool.toml:2:9: 'model' must be a table; write [price.model] on a line of its own"}));
}

TEST(Config, a_history_is_kept_for_days_or_hours) {
  const auto keep = [](const std::string& text) {
    PoolConfig config;
    const std::string file = "[pool]\nhistory = \"/x/h.sqlite\"\n[history]\nkeep = \"" + text + "\"\n";
    return parse_config(file, "pool.toml", &config).empty() ? config.history_keep_ms / 3'600'000 : 0;
  };
  EXPECT_EQ(keep("400d"), 9600u);
  EXPECT_EQ(keep("12h"), 12u);
  for (const char* wrong : {"", "0d", "5", "-1d", "1.5d", "30m", "99999999999999999999d", "40000d"})
    EXPECT_EQ(keep(wrong), 0u) << wrong;
  EXPECT_EQ(PoolConfig().history_keep_ms / 3'600'000, 9600u);
  EXPECT_EQ(
      errors_of("[history]\nkeep = \"soon\"\n"),
      (Lines{"pool.toml:2:8: 'soon' is no time of whole days or hours, like 400d or 12h; write keep = \"400d\""}));
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

TEST(Config, rates_of_moves) {
  EXPECT_EQ(rate_bytes("2GiB/s"), uint64_t{2} << 30);
  EXPECT_EQ(rate_bytes("1.5MiB/s"), 3u << 19);
  EXPECT_EQ(rate_bytes("off"), 0u);
  EXPECT_EQ(rate_bytes("0"), 0u);
  EXPECT_TRUE(check_server_setting("move_rate", "1048576/s").ok());
  EXPECT_FALSE(check_server_setting("move_rate", "0.5MiB/s").ok());
  EXPECT_FALSE(check_server_setting("move_rate", "fast").ok());
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
  EXPECT_EQ(
      errors_of("[[server]]\nname = \"a\"\nmove_rate = \"2GiB\"\n[[server]]\nname = \"b\"\nmove_rate = \"10KiB/s\"\n"
                "[[server]]\nname = \"c\"\nmove_rate = 3\n"),
      (Lines{"pool.toml:3:13: '2GiB' is no rate (1MiB/s to 1024TiB/s, or off); write move_rate = \"2GiB/s\"",
             "pool.toml:6:13: '10KiB/s' is no rate (1MiB/s to 1024TiB/s, or off); write move_rate = \"2GiB/s\"",
             "pool.toml:9:13: 'move_rate' must be text; write move_rate = \"...\""}));
  EXPECT_EQ(errors_of("[server]\nname = \"a\"\n"),
            (Lines{"pool.toml:1:1: 'server' must be a list of tables; write [[server]] on a line of its own"}));
}

TEST(Config, queues_are_read) {
  PoolConfig config;
  ASSERT_TRUE(parse_config("[[queue]]\nname = \"all\"\nquota = 8\n"
                           "[[queue]]\nname = \"research\"\nparent = \"all\"\nquota = 2.5\nlimit = 6\n"
                           "over_quota_weight = 3\npriority = -2\npreemptible = false\n"
                           "[policy]\nhalf_life = \"2h\"\npast_weight = 0.5\n",
                           "pool.toml", &config)
                  .empty());
  ASSERT_EQ(config.queues.size(), 2u);
  EXPECT_EQ(config.queues[0].name, "all");
  EXPECT_EQ(config.queues[0].limit, std::nullopt);
  EXPECT_EQ(config.queues[0].over_quota_weight, 1);
  EXPECT_TRUE(config.queues[0].preemptible);
  const QueueConfig& research = config.queues[1];
  EXPECT_EQ(research.parent, "all");
  EXPECT_EQ(research.quota, 2.5);
  EXPECT_EQ(research.limit, 6);
  EXPECT_EQ(research.over_quota_weight, 3);
  EXPECT_EQ(research.priority, -2);
  EXPECT_FALSE(research.preemptible);
  EXPECT_EQ(research.at.line, 5u);
  EXPECT_EQ(config.policy.half_life_ms, 2u * 3'600'000);
  EXPECT_EQ(config.policy.past_weight, 0.5);
  EXPECT_EQ(PoolConfig().policy.half_life_ms, 24u * 3'600'000);
}

TEST(Config, what_a_queue_says_of_itself_must_make_sense) {
  EXPECT_EQ(errors_of("[[queue]]\nname = \"a b\"\nquota = -1\nlimit = nan\nover_quota_weight = inf\n"
                      "priority = 1.5\npreemptible = 1\nparent = 3\nlimt = 4\n"),
            (Lines{"pool.toml:2:8: 'a b' is no name of 1 to 63 letters, digits, '-', '_' and '.'; write name = "
                   "\"research\"",
                   "pool.toml:3:9: '-1' is no number of GPUs from 0 to 1000000, in thousandths of one, and not between "
                   "0 and 0.01; write quota = 4",
                   "pool.toml:4:9: 'nan' is no number of GPUs from 0 to 1000000, in thousandths of one, and not "
                   "between 0 and 0.01; write limit = 4",
                   "pool.toml:5:21: 'inf' is no number from 0 to 1000000; write over_quota_weight = 1",
                   "pool.toml:6:12: 'priority' must be a whole number; write priority = 0",
                   "pool.toml:7:15: 'preemptible' must be true or false; write preemptible = true",
                   "pool.toml:8:10: 'parent' must be text; write parent = \"...\"",
                   "pool.toml:9:1: unknown key 'limt' in [[queue]]; did you mean 'limit'?"}));
  for (const char* quota : {"0.0001", "0.005", "1e9", "-0.5", "\"4\"", "true", "[4]", "0.1234"})
    EXPECT_EQ(errors_of(std::string("[[queue]]\nname = \"a\"\nquota = ") + quota + "\n").size(), 1u) << quota;
  for (const char* quota : {"0", "0.01", "0.125", "1000000", "7.0", "2.999"})
    EXPECT_EQ(errors_of(std::string("[[queue]]\nname = \"a\"\nquota = ") + quota + "\n").size(), 0u) << quota;
  EXPECT_EQ(errors_of("[[queue]]\nquota = 4\n"),
            (Lines{"pool.toml:1:1: a queue without a name; write name = \"research\""}));
  EXPECT_EQ(errors_of("[queue]\nname = \"a\"\n"),
            (Lines{"pool.toml:1:1: 'queue' must be a list of tables; write [[queue]] on a line of its own"}));
  EXPECT_EQ(errors_of("quota = 4\n"), (Lines{"pool.toml:1:1: unknown key 'quota'; it belongs under [[queue]]"}));
  EXPECT_EQ(errors_of("[policy]\nhalf_life = \"soon\"\npast_weight = -1\n"),
            (Lines{"pool.toml:2:13: 'soon' is no time; write half_life = \"24h\"",
                   "pool.toml:3:15: '-1' is no number from 0 to 1000000; write past_weight = 1"}));
}

TEST(Config, the_order_is_of_submission_where_nothing_else_is_said) {
  PoolConfig config;
  EXPECT_FALSE(config.policy.by_estimates);
  ASSERT_TRUE(parse_config("[policy]\norder = \"estimates\"\n", "pool.toml", &config).empty());
  EXPECT_TRUE(config.policy.by_estimates);
  ASSERT_TRUE(parse_config("[policy]\norder = \"submission\"\n", "pool.toml", &config).empty());
  EXPECT_FALSE(config.policy.by_estimates);
  EXPECT_EQ(errors_of("[policy]\norder = \"fastest\"\norder2 = 1\n"),
            (Lines{"pool.toml:2:9: 'fastest' is no order (submission or estimates); write order = \"estimates\"",
                   "pool.toml:3:1: unknown key 'order2' in [policy]; did you mean 'order'?"}));
}

TEST(Config, classes_and_when_jobs_may_be_disturbed) {
  PoolConfig config;
  ASSERT_TRUE(parse_config("[policy]\nmin_runtime = \"10m\"\ndisturbances_per_hour = 4\nidle_return = \"off\"\n"
                           "[[queue]]\nname = \"a\"\nclass = \"interactive\"\nmin_runtime = \"off\"\n"
                           "[[queue]]\nname = \"b\"\n",
                           "pool.toml", &config)
                  .empty());
  EXPECT_EQ(config.policy.min_runtime_ms, 600'000u);
  EXPECT_EQ(config.policy.disturbances_per_hour, 4u);
  EXPECT_EQ(config.policy.idle_return_ms, 0u);
  EXPECT_EQ(config.queues.at(0).job_class, JobClass::kInteractive);
  EXPECT_EQ(config.queues.at(0).min_runtime_ms, 0u);
  EXPECT_FALSE(config.queues.at(1).job_class.has_value());
  EXPECT_FALSE(config.queues.at(1).min_runtime_ms.has_value());
  EXPECT_EQ(PoolConfig().policy.idle_return_ms, 600'000u);
  EXPECT_FALSE(PoolConfig().policy.min_runtime_ms.has_value());
  EXPECT_EQ(
      errors_of("[policy]\nmin_runtime = \"soon\"\ndisturbances_per_hour = -1\nidle_return = 10\nidle_retrun = \"1m\"\n"
                "[[queue]]\nname = \"a\"\nclass = \"urgent\"\nmin_runtime = \"\"\n"),
      (Lines{"pool.toml:2:15: 'soon' is no time (or off); write min_runtime = \"10m\"",
             "pool.toml:3:25: '-1' is no number from 0 to 1000; write disturbances_per_hour = 1",
             "pool.toml:4:15: 'idle_return' must be text; write idle_return = \"...\"",
             "pool.toml:5:1: unknown key 'idle_retrun' in [policy]; did you mean 'idle_return'?",
             "pool.toml:8:9: 'urgent' is no class (batch, interactive or inference); write class = \"interactive\"",
             "pool.toml:9:15: '' is no time (or off); write min_runtime = \"10m\""}));
}

TEST(Config, queues_must_make_sense_together) {
  EXPECT_EQ(errors_of("[[queue]]\nname = \"a\"\nparent = \"b\"\n"
                      "[[queue]]\nname = \"b\"\nparent = \"a\"\n"
                      "[[queue]]\nname = \"c\"\nparent = \"c\"\n"
                      "[[queue]]\nname = \"d\"\nparent = \"nobody\"\n"
                      "[[queue]]\nname = \"d\"\n"
                      "[[queue]]\nname = \"e\"\nquota = 4\nlimit = 3\n"
                      "[[queue]]\nname = \"p\"\nquota = 4\n"
                      "[[queue]]\nname = \"q\"\nparent = \"p\"\nquota = 3\n"
                      "[[queue]]\nname = \"r\"\nparent = \"p\"\nquota = 1.5\n"
                      "[[queue]]\nname = \"s\"\npreemptible = false\n"),
            (Lines{"pool.toml:3:10: queue 'a' is its own ancestor: a -> b -> a; one of them must have no parent, or "
                   "another one",
                   "pool.toml:6:10: queue 'b' is its own ancestor: b -> a -> b; one of them must have no parent, or "
                   "another one",
                   "pool.toml:9:10: queue 'c' is its own ancestor: c -> c; one of them must have no parent, or another "
                   "one",
                   "pool.toml:12:10: there is no queue 'nobody' to be the parent of 'd'; write one with that name, or "
                   "leave 'parent' out",
                   "pool.toml:14:8: there are two queues 'd'; the other one is in line 11",
                   "pool.toml:18:9: the limit of queue 'e' is below its quota of 4 GPUs; write limit = 4 or more, or a "
                   "smaller quota",
                   "pool.toml:21:9: the quotas of the queues in 'p' are 4.5 GPUs together, its own is 4 GPUs; write "
                   "quota = 4.5, or less for its children",
                   "pool.toml:31:8: queue 's' is not preemptible and has no quota, so nothing can ever run in it; "
                   "write quota = ...: jobs from which nothing is taken get no more than that"}));
  EXPECT_EQ(errors_of("[[queue]]\nname = \"x\"\nparent = \"a\"\n[[queue]]\nname = \"a\"\nparent = \"a\"\n").size(), 1u)
      << "who hangs on a cycle is not part of it";
}

TEST(Config, trees_of_queues_are_not_too_deep_and_not_too_many) {
  const auto chain = [](uint32_t count) {
    std::string text;
    for (uint32_t i = 0; i < count; ++i) {
      text += "[[queue]]\nname = \"q" + std::to_string(i) + "\"\n";
      if (i > 0) text += "parent = \"q" + std::to_string(i - 1) + "\"\n";
    }
    return text;
  };
  EXPECT_TRUE(errors_of(chain(kQueueLevelsMax)).empty());
  EXPECT_EQ(errors_of(chain(kQueueLevelsMax + 1)),
            (Lines{"pool.toml:26:10: queue 'q8' has more than 7 levels above it; make the tree flatter"}));
  std::string many;
  for (size_t i = 0; i <= kQueuesMax; ++i) many += "[[queue]]\nname = \"q" + std::to_string(i) + "\"\n";
  EXPECT_EQ(errors_of(many), (Lines{"pool.toml:2050:8: there are 1025 queues; a pool has 1024 at most"}));
}

TEST(Config, garbage_is_refused_in_no_time) {
  const auto path = testing::TempDir() + "tide-config-garbage.toml";
  const auto try_file = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    PoolConfig config;
    const auto errors = read_config(path, &config);
    unlink(path.c_str());
    return errors;
  };
  std::string garbage(5u << 20, 0);
  for (size_t i = 0; i < garbage.size(); ++i) garbage[i] = char(i * 2654435761u >> 13);
  EXPECT_EQ(try_file(garbage).at(0).text(), path + ": is larger than 4 MiB; this is no pool.toml");
  garbage.resize(1u << 20);
  EXPECT_EQ(try_file(garbage).size(), 1u) << "no TOML";
  std::string keys;
  for (int i = 0; i < 50'000; ++i) keys += "key" + std::to_string(i) + " = 1\n";
  const auto errors = try_file(keys);
  ASSERT_EQ(errors.size(), kConfigErrorsMax + 1);
  EXPECT_EQ(errors.back().message, "and 49900 more errors");
  EXPECT_EQ(try_file(std::string(1u << 20, '[')).size(), 1u);
  EXPECT_EQ(try_file("x = " + std::string(1u << 20, '[')).size(), 1u);
  EXPECT_EQ(try_file("[[queue]]\nname = \"" + std::string(1u << 20, 'a') + "\"\n").at(0).text().size() < 400, true);
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

TEST(Config, what_servers_are_is_for_the_scheduler) {
  PoolConfig config;
  ASSERT_TRUE(parse_config("[[server]]\nname = \"gpu1\"\nlabels = [\"rack=a\", \"team/zone=b.1\"]\nswitch = \"s1\"\n"
                           "hold_s = 5\n",
                           "pool.toml", &config)
                  .empty());
  EXPECT_EQ(config.servers[0].traits, (ServerTraits{{"rack=a", "team/zone=b.1"}, "s1"}));
  EXPECT_EQ(config.servers[0].settings, (std::map<std::string, std::string>{{"hold_s", "5"}}));
  EXPECT_EQ(errors_of("[[server]]\nname = \"a\"\nlabels = [\"rack\", 7, \"x=1\", \"x=1\"]\nswitch = 3\n"
                      "[[server]]\nname = \"b\"\nlabels = \"rack=a\"\n"),
            (Lines{"pool.toml:3:11: 'rack' is no label (KEY=VALUE of letters, digits, '-', '_', '.' and '/', 1 to 63 "
                   "each); write labels = [\"rack=a\"]",
                   "pool.toml:3:19: a label must be text; write labels = [\"rack=a\"]",
                   "pool.toml:3:29: the label 'x=1' stands there twice; leave one out",
                   "pool.toml:4:10: 'switch' must be text; write switch = \"...\"",
                   "pool.toml:7:10: 'labels' must be a list of texts; write labels = [\"rack=a\"]"}));
  EXPECT_EQ(check_server_setting("labels", "rack=a").message(),
            "the scheduler reads 'labels' from its pool.toml; an agent has no such option");
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
  EXPECT_EQ(to_text(config.etcd), "etcd://a:1");
  EXPECT_FALSE(check_store(config).ok()) << "nobody on another machine finds 127.0.0.1";
  config.listen = config.door = "10.0.0.5:7411";
  EXPECT_TRUE(check_store(config).ok());
  EXPECT_TRUE(read_store("etcd://127.0.0.1:1,localhost:2/lab", &config).ok());
  EXPECT_EQ(to_text(config.etcd), "etcd://127.0.0.1:1,localhost:2/lab");
  config.listen = "127.0.0.1:7411";
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
