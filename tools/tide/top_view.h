#pragma once

// `tide top` as lines of text, made to fit a terminal. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/control.capnp.h"

namespace tide::cli {

struct TopSize {
  uint32_t columns = 80, rows = 24;  // rows 0: as many as it takes
};

// No longer and no more of them than `size` allows; the last one of a part that is cut says how many are left out.
std::vector<std::string> top_lines(control::Pool::TopResults::Reader top, const TopSize& size);

// Cut to so many columns; not inside of a character of several bytes, and nothing in it speaks to the terminal.
std::string fitting(const std::string& text, uint32_t columns);

}  // namespace tide::cli
