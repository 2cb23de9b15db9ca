#include "tools/bench/kelp_bench.h"

int main(int argc, char** argv) {
  return kelp::bench::run_kelp_bench(argc, argv);
}
