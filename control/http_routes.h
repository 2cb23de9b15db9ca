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

  /// One for every path that starts with `prefix`, which ends in '/', and is not added by itself.
  void add_prefix(const std::string& method, const std::string& prefix, HttpHandler handler) {
    add(method, prefix, std::move(handler));
  }

  /// Unknown path: 404. Known path, other method: 405 with the methods that would do.
  HttpResponse operator()(const HttpRequest& request) const;

 private:
  using Methods = std::map<std::string, HttpHandler>;
  const Methods* find(const std::string& path) const;

  std::map<std::string, Methods> handlers_;  ///< by path; one that ends in '/' is a prefix
};

}  // namespace kelp
