#include <stdio.h>

#include "tools/tide/commands.h"
#include "tools/tide/options.h"

namespace tide::cli {

int version(const Words& words) {
  Options options;
  if (!options.parse(words, {}, "usage: tide version\n\nPrints the version.\n")) return options.status();
  if (!options.expect_words(0, "")) return options.status();
  puts("tide " TIDE_VERSION);
  return kOk;
}

}  // namespace tide::cli
