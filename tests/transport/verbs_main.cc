// gtest_main for what needs an RDMA device: without one the test is skipped (exit 77), never passed in silence.

#include <gtest/gtest.h>

#include <cstdio>

#include "transport/verbs.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const tide::Outcome usable = tide::verbs_usable(); !usable.ok()) {
    printf("skipped: %s\n", usable.message().c_str());
    return 77;
  }
  return RUN_ALL_TESTS();
}
