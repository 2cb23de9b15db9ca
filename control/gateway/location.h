// Where a volume is, as a master says. Source: format reference, 9.1.
#pragma once

#include <string>

namespace kelp {

struct Location {
  std::string url;          ///< "10.0.0.1:8080", without a scheme
  std::string public_url;   ///< the same, unless configured otherwise
  std::string data_center;  ///< "" where the master does not say
  friend bool operator==(const Location&, const Location&) = default;
};

}  // namespace kelp
