// The web page of a run, whole: launcher/web_page.html, built in.
#pragma once

#include <string>

namespace mds::launcher {

const std::string& web_page_html();

}  // namespace mds::launcher
