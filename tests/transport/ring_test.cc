#include "transport/ring.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/transport/peer.h"
#include "transport/link.h"

namespace tide {
namespace {

class RingTest : public testing::Test {
 protected:
  RingTest() {
    EXPECT_TRUE(create_region(&fd_, &region).ok());
    writer = CommandWriter(region);
    reader = CommandReader(region);
  }
  ~RingTest() override { destroy_region(fd_, region); }

  CommandHeader* put(uint32_t payload_bytes) {
    CommandHeader* header = writer.reserve(payload_bytes);
    if (header == nullptr) return nullptr;
    header->call = 1;
    writer.publish(header);
    return header;
  }
  // What a reader makes of a record after `change` was made to it.
  template <class Change>
  ReadState read_changed(Change change) {
    CommandHeader* header = put(100);
    change(header);
    Command command;
    return reader.next(&command);
  }

  Region region;
  CommandWriter writer;
  CommandReader reader;

 private:
  int fd_ = -1;
};

TEST_F(RingTest, a_new_region_is_empty_and_says_its_version) {
  EXPECT_EQ(region.client().magic, kRegionMagic);
  EXPECT_EQ(region.client().version, kRegionVersion);
  EXPECT_EQ(region.client().region_bytes, kRegionBytes);
  EXPECT_EQ(region.worker().state.load(), uint64_t(ChannelState::kNew));
  Command command;
  EXPECT_EQ(reader.next(&command), ReadState::kEmpty);
  EXPECT_FALSE(reader.ready());
}

TEST_F(RingTest, a_reader_that_keeps_up_makes_the_first_pages_serve_again) {
  writer.reuse_start(true);
  uint64_t last = 0;
  for (int i = 0; i < 100'000; ++i) {
    CommandHeader* header = put(100);
    ASSERT_NE(header, nullptr);
    const auto at = uint64_t(reinterpret_cast<std::byte*>(header) - region.commands());
    EXPECT_LT(at, kReuseFrom + kReuseBehind);
    Command command;
    ASSERT_EQ(reader.next(&command), ReadState::kRecord);
    EXPECT_EQ(command.header.sequence, ++last);
    reader.consume(command);
  }
}

TEST_F(RingTest, a_reader_that_does_not_keep_up_leaves_the_whole_ring_to_the_writer) {
  writer.reuse_start(true);
  uint64_t written = 0;
  while (put(100) != nullptr) ++written;
  EXPECT_GE(written * record_bytes(sizeof(CommandHeader), 100), kCommandRingBytes - kRecordBytesMax);
  Command command;
  for (uint64_t read = 0; read < written; ++read) {
    ASSERT_EQ(reader.next(&command), ReadState::kRecord);
    reader.consume(command);
  }
  EXPECT_EQ(reader.next(&command), ReadState::kEmpty);
}

TEST_F(RingTest, records_are_numbered_from_one_and_keep_their_fields) {
  for (uint64_t i = 1; i <= 3; ++i) {
    CommandHeader* header = writer.reserve(4);
    header->call = 9;
    header->flags = kCommandAnswer;
    header->context = 3;
    header->stream = 77;
    memcpy(payload_of(header), &i, 4);
    EXPECT_EQ(writer.publish(header), i);
  }
  EXPECT_EQ(writer.last_sequence(), 3u);
  Command command;
  for (uint32_t i = 1; i <= 3; ++i) {
    ASSERT_EQ(reader.next(&command), ReadState::kRecord);
    EXPECT_EQ(command.header.sequence, i);
    EXPECT_EQ(command.header.stream, 77u);
    EXPECT_EQ(command.header.context, 3u);
    EXPECT_EQ(command.header.payload_bytes, 4u);
    EXPECT_EQ(memcmp(command.payload, &i, 4), 0);
    EXPECT_EQ(command.end % kRecordAlign, 0u);
  }
  EXPECT_EQ(reader.next(&command), ReadState::kEmpty);
}

TEST_F(RingTest, a_place_that_is_not_published_is_used_again) {
  CommandHeader* first = writer.reserve(100);
  EXPECT_EQ(writer.reserve(50), first);
  EXPECT_EQ(region.client().command_head.load(), 0u);
}

TEST_F(RingTest, a_record_may_shrink_before_it_is_published) {
  CommandHeader* header = writer.reserve(1000);
  header->call = 1;
  header->payload_bytes = 10;
  writer.publish(header);
  EXPECT_EQ(region.client().command_head.load(), 48u);
  Command command;
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  EXPECT_EQ(command.header.payload_bytes, 10u);
}

TEST_F(RingTest, a_full_ring_has_no_place_until_something_is_consumed) {
  uint64_t count = 0;
  while (put(kCommandPayloadMax) != nullptr) ++count;
  EXPECT_EQ(count, kCommandRingBytes / kRecordBytesMax);
  EXPECT_FALSE(writer.fits(0));
  Command command;
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  EXPECT_EQ(writer.reserve(0), nullptr);  // read, but not yet executed
  reader.consume(command);
  EXPECT_EQ(region.worker().acknowledged.load(), 1u);
  EXPECT_TRUE(writer.fits(kCommandPayloadMax));
  EXPECT_NE(put(kCommandPayloadMax), nullptr);
}

TEST_F(RingTest, padding_of_any_length_keeps_records_contiguous) {
  Command command;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    // Comes to within a few records of the end each time round.
    const uint64_t head = region.client().command_head.load();
    const uint64_t room = kCommandRingBytes - head % kCommandRingBytes;
    const uint32_t bytes = room > 2 * kRecordBytesMax ? kCommandPayloadMax : uint32_t(16 * (seed % 7) + seed % 16);
    ASSERT_NE(put(bytes), nullptr);
    ASSERT_EQ(reader.next(&command), ReadState::kRecord) << reader.reason();
    ASSERT_EQ(command.header.payload_bytes, bytes);
    reader.consume(command);
  }
  // Exactly 16 bytes of room: padding without the rest of a header.
  while (true) {
    const uint64_t room = kCommandRingBytes - region.client().command_head.load() % kCommandRingBytes;
    if (room == 16) break;
    const uint64_t bytes = room <= kRecordBytesMax && room >= 48 ? room - 16 : room < 48 ? 32 : kRecordBytesMax / 2;
    ASSERT_NE(put(uint32_t(bytes - sizeof(CommandHeader))), nullptr);
    ASSERT_EQ(reader.next(&command), ReadState::kRecord) << reader.reason();
    reader.consume(command);
  }
  ASSERT_NE(put(8), nullptr);
  ASSERT_EQ(reader.next(&command), ReadState::kRecord) << reader.reason();
  EXPECT_EQ(command.payload, region.commands() + sizeof(CommandHeader));
}

TEST_F(RingTest, a_second_reader_begins_after_the_last_consumed_command) {
  for (int i = 0; i < 5; ++i) put(20);
  Command command;
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  reader.consume(command);
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);  // read, not consumed
  CommandReader second(region);
  ASSERT_EQ(second.next(&command), ReadState::kRecord);
  EXPECT_EQ(command.header.sequence, 3u);
  reader.rewind();
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  EXPECT_EQ(command.header.sequence, 3u);
}

TEST_F(RingTest, a_skipped_number_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->sequence = 2; }), ReadState::kMalformed);
  EXPECT_STREQ(reader.reason(), "the sequence number is not the next one");
}
TEST_F(RingTest, a_repeated_number_is_refused) {
  put(8);
  Command command;
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->sequence = 1; }), ReadState::kMalformed);
}
TEST_F(RingTest, a_length_of_zero_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->bytes = 0; }), ReadState::kMalformed);
}
TEST_F(RingTest, an_odd_length_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->bytes -= 8; }), ReadState::kMalformed);
}
TEST_F(RingTest, a_length_beyond_the_head_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->bytes += 16; }), ReadState::kMalformed);
}
TEST_F(RingTest, a_payload_longer_than_its_record_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->payload_bytes = 0xffffffff; }), ReadState::kMalformed);
}
TEST_F(RingTest, padding_in_the_middle_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->call = 0; }), ReadState::kMalformed);
}
TEST_F(RingTest, an_unknown_flag_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->flags = 2; }), ReadState::kMalformed);
}
TEST_F(RingTest, a_reserved_field_that_is_set_is_refused) {
  EXPECT_EQ(read_changed([](CommandHeader* h) { h->reserved = 1; }), ReadState::kMalformed);
}
TEST_F(RingTest, a_head_beyond_the_ring_is_refused) {
  EXPECT_EQ(read_changed([&](CommandHeader*) { region.client().command_head.store(kCommandRingBytes + 16); }),
            ReadState::kMalformed);
}
TEST_F(RingTest, a_head_behind_the_reader_is_refused) {
  put(8);
  Command command;
  ASSERT_EQ(reader.next(&command), ReadState::kRecord);
  region.client().command_head.store(16);
  EXPECT_EQ(reader.next(&command), ReadState::kMalformed);
}
TEST_F(RingTest, a_tail_beyond_the_head_counts_as_a_full_ring) {
  region.worker().command_tail.store(1u << 30);
  CommandWriter mistrusting(region);
  while (put(kCommandPayloadMax) != nullptr) {
  }
  EXPECT_EQ(writer.reserve(0), nullptr);
}

TEST_F(RingTest, answers_travel_back) {
  AnswerWriter answers(region);
  AnswerReader back(region);
  AnswerHeader* header = answers.reserve(5);
  header->kind = uint16_t(AnswerKind::kData);
  header->sequence = 12;
  header->result = -3;
  header->offset = 1ull << 40;
  memcpy(payload_of(header), "hello", 5);
  answers.publish(header);
  Answer answer;
  ASSERT_TRUE(back.ready());
  ASSERT_EQ(back.next(&answer), ReadState::kRecord);
  EXPECT_EQ(answer.header.sequence, 12u);
  EXPECT_EQ(answer.header.result, -3);
  EXPECT_EQ(answer.header.offset, 1ull << 40);
  EXPECT_EQ(memcmp(answer.payload, "hello", 5), 0);
  back.consume(answer);
  EXPECT_EQ(region.client().answer_tail.load(), answer.end);
  EXPECT_EQ(back.next(&answer), ReadState::kEmpty);
}

TEST_F(RingTest, an_unknown_kind_of_answer_is_refused) {
  AnswerWriter answers(region);
  AnswerReader back(region);
  AnswerHeader* header = answers.reserve(5);
  header->kind = 99;
  answers.publish(header);
  Answer answer;
  EXPECT_EQ(back.next(&answer), ReadState::kMalformed);
}

// Every record that a reader lets through lies within the ring, whatever a hostile client wrote.
TEST_F(RingTest, random_bytes_never_lead_out_of_the_ring) {
  peer::Numbers numbers{11};
  uint64_t accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    const uint64_t begin = numbers.next() % 4 == 0 ? kCommandRingBytes - 16 * (1 + numbers.next() % 64)
                                                   : 16 * (numbers.next() % (kCommandRingBytes / 16));
    region.worker().command_tail.store(begin);
    region.worker().acknowledged.store(6);
    CommandReader fuzzed(region);
    for (uint64_t i = 0; i < 1024; i += 8) {
      const uint64_t random = numbers.next();
      memcpy(region.commands() + (begin + i) % kCommandRingBytes, &random, 8);
    }
    // Often nearly right, or nothing would come past the first check.
    CommandHeader header;
    header.bytes = uint32_t(16 * (numbers.next() % 40));
    header.call = uint16_t(numbers.next() % 3);
    header.sequence = 6 + numbers.next() % 2;
    header.payload_bytes = uint32_t(header.bytes - 32 - numbers.next() % 20);
    memcpy(region.commands() + begin % kCommandRingBytes, &header, std::min<uint64_t>(32, kCommandRingBytes - begin));
    const uint64_t ahead = numbers.next() % 8 == 0 ? numbers.next() : 16 * (numbers.next() % 80);
    region.client().command_head.store(begin + ahead);
    Command command;
    for (int i = 0; i < 8 && fuzzed.next(&command) == ReadState::kRecord; ++i) {
      ++accepted;
      const uint64_t at = uint64_t(command.payload - region.commands());
      ASSERT_LE(at + command.header.payload_bytes, kCommandRingBytes);
      ASSERT_LE(command.end, begin + ahead);
    }
  }
  EXPECT_GT(accepted, 100u);
}

TEST(TripCounts, more_functions_than_words_take_nothing_from_those_that_came_first) {
  TripCounts trips;
  trips.count(0);
  for (uint16_t function = 1; function <= 2 * kTripSlots; ++function) trips.count(uint16_t(function * kTripSlots));
  for (int i = 0; i < 4; ++i) trips.count(kTripSlots);
  uint64_t words = 0, first = 0;
  for (const Word& word : trips.words) {
    words += word != 0;
    if (TripCounts::function_of(word) == kTripSlots) first = TripCounts::count_of(word);
  }
  EXPECT_EQ(words, kTripSlots);
  EXPECT_EQ(first, 5u);
}

}  // namespace
}  // namespace tide
