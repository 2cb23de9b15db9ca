// Which path is answered by what; hand it to HttpServer as its handler.
// Filled before the server runs; afterwards called on the control thread only.
#pragma once

#include <map>
#include <string>

#include "control/http_server.h"

namespace kelp {

class HttpRoutes {
 public:
  /// One handler per method and exact path: add("GET", "/health", ...).
  void add(const std::string& method, const std::string& path, HttpHandler handler);

  /// Unknown path: 404. Known path, other method: 405 with the methods that would do.
  HttpResponse operator()(const HttpRequest& request) const;

 private:
  std::map<std::string, std::map<std::string, HttpHandler>> handlers_;  ///< path, then method
};

}  // namespace kelp
