// TLS 1.3 with an external pre-shared key and nothing else: the OpenSSL side of the secure channel. Internal.
#pragma once

#include <memory>

#include <boost/asio/ssl/context.hpp>

#include "agent/credentials.hpp"
#include "topology/result.hpp"

namespace mds::agent {

enum class TlsRole { client, server };

/// Holds the credentials that OpenSSL's callbacks read: it must outlive every stream made from `context`.
struct TlsContext {
  TlsContext(SSL_CTX* owned, const Credentials& c) : credentials(c), identity(job_to_hex(c.job)), context(owned) {}

  const Credentials credentials;
  const std::string identity;
  boost::asio::ssl::context context;
};

/// The same one again for the same role and credentials on the same thread, while it lives. Errors: internal.
Result<std::shared_ptr<TlsContext>> make_tls_context(TlsRole role, const Credentials& credentials);

/// After a handshake: was it TLS 1.3 and authenticated by the pre-shared key?
bool is_psk_authenticated(SSL* ssl);

}  // namespace mds::agent
