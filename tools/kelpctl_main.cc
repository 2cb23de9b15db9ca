#include "tools/kelpctl.h"

int main(int argc, char** argv) {
  return kelp::run_kelpctl(argc, argv);
}
