#include "agent/tls_psk.hpp"

#include <openssl/ssl.h>

#include <cstring>

namespace mds::agent {
namespace {

constexpr unsigned char kCipherId[] = {0x13, 0x01};  // TLS_AES_128_GCM_SHA256
constexpr char kCipherName[] = "TLS_AES_128_GCM_SHA256";

// Every agent pays for this when it starts. The machine's openssl.cnf is not ours to depend on; tables of names for
// algorithms that we do not use and texts of errors cost more than a handshake; memory is not given back piece by piece
// at the end: the kernel takes it all, and clears it before anybody else has it.
void init_openssl() {
  OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ADD_ALL_DIGESTS |
                       OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS | OPENSSL_INIT_NO_ATEXIT,
                   nullptr);
}

// A slot of our own: Asio takes the application data of a context for its own and deletes it.
int context_slot() {
  static const int slot = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return slot;
}

const TlsContext* context_of(SSL* ssl) {
  return static_cast<const TlsContext*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_slot()));
}

// RFC 8446, 4.2.11: an external PSK enters OpenSSL as the session that is "resumed". Null when out of memory.
SSL_SESSION* make_session(SSL* ssl, const JobKey& key) {
  SSL_SESSION* session = SSL_SESSION_new();
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kCipherId);
  if (session && cipher && SSL_SESSION_set1_master_key(session, key.bytes().data(), key.bytes().size()) &&
      SSL_SESSION_set_cipher(session, cipher) && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION)) {
    return session;
  }
  SSL_SESSION_free(session);
  return nullptr;
}

// The client offers the key. `digest` is set on a second try, when the server has chosen a hash: ours is SHA-256.
int offer_session(SSL* ssl, const EVP_MD* digest, const unsigned char** id, size_t* id_length, SSL_SESSION** session) {
  *session = nullptr;
  if (digest && !EVP_MD_is_a(digest, "SHA256")) return 1;
  const TlsContext* context = context_of(ssl);
  *session = make_session(ssl, context->credentials.key);
  if (!*session) return 0;
  *id = reinterpret_cast<const unsigned char*>(context->identity.data());
  *id_length = context->identity.size();
  return 1;
}

// The server looks the identity up. No session and no certificate leaves no way to go on: the handshake fails.
int find_session(SSL* ssl, const unsigned char* id, size_t id_length, SSL_SESSION** session) {
  const TlsContext* context = context_of(ssl);
  *session = nullptr;
  if (id_length != context->identity.size() || std::memcmp(id, context->identity.data(), id_length) != 0) return 1;
  *session = make_session(ssl, context->credentials.key);
  return *session ? 1 : 0;
}

Result<std::shared_ptr<TlsContext>> new_tls_context(TlsRole role, const Credentials& credentials) {
  init_openssl();
  SSL_CTX* raw = SSL_CTX_new(role == TlsRole::client ? TLS_client_method() : TLS_server_method());
  if (!raw) return internal("OpenSSL could not make a TLS context");
  auto context = std::make_shared<TlsContext>(raw, credentials);
  const bool set = SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION) && SSL_CTX_set_ciphersuites(raw, kCipherName) &&
                   SSL_CTX_set1_groups_list(raw, "X25519:P-256") && SSL_CTX_set_num_tickets(raw, 0) &&
                   SSL_CTX_set_max_early_data(raw, 0) && SSL_CTX_set_ex_data(raw, context_slot(), context.get());
  if (!set) return internal("OpenSSL cannot do TLS 1.3 with " + std::string(kCipherName));
  SSL_CTX_set_options(raw, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  if (role == TlsRole::client) {
    // A server that shows some certificate instead of proving the key must not be accepted.
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_psk_use_session_callback(raw, offer_session);
  } else {
    SSL_CTX_set_psk_find_session_callback(raw, find_session);
  }
  return context;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> make_tls_context(TlsRole role, const Credentials& credentials) {
  // One costs as much as a handshake, and an agent that is sent on to another connects twice at once.
  thread_local std::weak_ptr<TlsContext> last[2];
  std::weak_ptr<TlsContext>& mine = last[role == TlsRole::server];
  if (auto kept = mine.lock(); kept && kept->credentials == credentials) return kept;
  auto made = new_tls_context(role, credentials);
  if (made) mine = *made;
  return made;
}

bool is_psk_authenticated(SSL* ssl) { return SSL_version(ssl) == TLS1_3_VERSION && SSL_session_reused(ssl) == 1; }

}  // namespace mds::agent
