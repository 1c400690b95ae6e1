// Catch2 2 (Debian 12) and 3 (Ubuntu 24.04) under one include. The main function is Catch2's own.
#pragma once
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
