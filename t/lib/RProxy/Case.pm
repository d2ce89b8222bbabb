# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What a test sub gets: one private httpd of one lane, its upstreams and clients, in a directory of
# its own. Everything that is started here is ended by finish(), also when the test died.
package RProxy::Case;
use strict;
use warnings;
use Carp ();
use File::Path ();
use File::Temp ();
use POSIX ();
use RProxy::Certs;
use RProxy::Client;
use RProxy::Config;
use RProxy::H2;
use RProxy::Platform;
use RProxy::Ports;
use RProxy::Server;
use RProxy::Task;
use RProxy::Upstream;
use RProxy::WebSocket;

# A lane says how httpd runs and how its clients speak; server => [lines] adds to its configuration.
our %LANES = (
    event        => { mpm => 'event', server => ['RProxyEngine off'] },
    worker       => { mpm => 'worker' },
    prefork      => { mpm => 'prefork' },
    tls          => { mpm => 'event', tls => 1, server => ['RProxyEngine off'] },
    h2           => { mpm => 'event', tls => 1, h2 => 1, mod_http2 => 1,
                      server => ['RProxyEngine off'] },
    engine       => { mpm => 'event', engine => 1, server => ['RProxyEngineThreads 1'] },
    'engine-tls' => { mpm => 'event', tls => 1, engine => 1,
                      server => ['RProxyEngineThreads 1'] },
    'engine-h2'  => { mpm => 'event', tls => 1, h2 => 1, engine => 1,
                      server => ['RProxyEngineThreads 1'] },
);
our @LANES = qw(event worker prefork tls h2 engine engine-tls engine-h2);

sub new {
    my ($class, $lane) = @_;
    my $spec = $LANES{$lane} // Carp::croak("no lane '$lane'");
    my $directory = File::Temp::tempdir('rproxy-XXXXXXXX', TMPDIR => 1);
    chmod 0755, $directory;
    my $self = bless {
        lane => $lane, spec => $spec, directory => $directory, owner => $$, upstreams => [],
        tasks => [], ports => [], beside => [],
    }, $class;
    $self->{port} = $self->_reserve_port;
    $self->{certs} = RProxy::Certs->new("$directory/certs");
    $self->{config} = RProxy::Config->new(%$spec, directory => $directory,
        port => $self->{port}, certs => $self->{certs});
    $self->{server} = RProxy::Server->new(directory => $directory, config => $self->{config});
    return $self;
}

sub lane { return $_[0]{lane} }
sub mpm { return $_[0]{spec}{mpm} }
sub is_tls { return $_[0]{spec}{tls} ? 1 : 0 }
sub is_engine { return $_[0]{spec}{engine} ? 1 : 0 }
sub is_h2 { return $_[0]{spec}{h2} ? 1 : 0 }
sub has_mod_http2 { return $_[0]{spec}{mod_http2} ? 1 : 0 }
sub scheme { return $_[0]{spec}{tls} ? 'https' : 'http' }
sub host { return RProxy::Config::SERVER_NAME() }
sub port { return $_[0]{port} }
sub directory { return $_[0]{directory} }
sub certs { return $_[0]{certs} }
sub server { return $_[0]{server} }

sub _reserve_port {
    my ($self) = @_;
    my $port = RProxy::Ports->reserve;
    push @{ $self->{ports} }, $port;
    return $port;
}

# A port where nobody listens: connections to it are refused.
sub refused_port { return $_[0]->_reserve_port }

# ---- configuration --------------------------------------------------------------------------

sub config { my ($self, @lines) = @_; push @{ $self->{config}{main} }, @lines; return $self }
sub server_config {
    my ($self, @lines) = @_;
    push @{ $self->{config}{server} }, @lines;
    return $self;
}

# Forgets the lines given by config and server_config: for a graceful restart with others.
sub clear_config {
    my ($self) = @_;
    $self->{config}{$_} = [] for qw(main vhosts);
    $self->{config}{server} = [@{ $self->{spec}{server} // [] }];
    return $self;
}

sub extra_modules {
    my ($self, @names) = @_;
    push @{ $self->{config}{modules} }, @names;
    return $self;
}

# Leaves out some of our own modules.
sub without_modules {
    my ($self, @names) = @_;
    $self->{config}{without}{$_} = 1 for @names;
    return $self;
}

# Directives of the MPM, e.g. ThreadsPerChild => 4, MaxRequestWorkers => 8.
sub mpm_config {
    my ($self, %settings) = @_;
    %{ $self->{config}{mpm_settings} } = (%{ $self->{config}{mpm_settings} }, %settings);
    return $self;
}

# In the lanes of the engine: event loops of each child instead of one.
sub engine_threads {
    my ($self, $count) = @_;
    s/^RProxyEngineThreads \K\d+/$count/ for @{ $self->{config}{server} };
    return $self;
}

sub log_level { my ($self, $level) = @_; $self->{config}{log_level} = $level; return $self }
sub access_format { my ($self, $text) = @_; $self->{config}{access_format} = $text; return $self }

# A further address to listen on: its port, for vhost(..., port => ...).
sub listen {
    my ($self) = @_;
    my $port = $self->_reserve_port;
    push @{ $self->{config}{listen} }, $port;
    return $port;
}

# A further virtual host. Options: port, tls (as the lane by default), certificate.
sub vhost {
    my ($self, $name, $lines, %options) = @_;
    push @{ $self->{config}{vhosts} }, { name => $name, port => $self->{port},
        lines => [ref $lines ? @$lines : $lines], %options };
    return $self;
}

# Writes a file below the directory ('htdocs/x/.htaccess'); returns its path.
sub file {
    my ($self, $name, $text) = @_;
    my $path = "$self->{directory}/$name";
    File::Path::make_path($path =~ s{/[^/]*$}{}r, { mode => 0755 });
    open my $fh, '>:raw', $path or Carp::croak("$path: $!");
    print $fh $text;
    close $fh;
    chmod 0644, $path;
    return $path;
}

# The number of the first line of the written configuration that matches.
sub config_line {
    my ($self, $pattern) = @_;
    my $number = 0;
    for my $line (split /\n/, $self->{config}->text) {
        $number++;
        return $number if $line =~ $pattern;
    }
    return undef;
}

# httpd -t with the configuration so far: (exit code, output).
sub httpd_test {
    my ($self, @args) = @_;
    return $self->{server}->run('-t', @args);
}

# Another httpd of any lane, which ends with this one.
sub beside {
    my ($self, $lane) = @_;
    my $other = (ref $self)->new($lane);
    push @{ $self->{beside} }, $other;
    return $other;
}

# ---- upstreams ------------------------------------------------------------------------------

# Options of RProxy::Upstream; a sub at the end is its on_connection handler. Served from start on.
sub upstream {
    my ($self, @args) = @_;
    my $handler = @args % 2 ? pop @args : undef;
    my $number = @{ $self->{upstreams} } + 1;
    my $upstream = RProxy::Upstream->new(directory => "$self->{directory}/upstream$number",
        certs => $self->{certs}, @args);
    $upstream->on_connection($handler) if $handler;
    push @{ $self->{ports} }, $upstream->port // ();
    push @{ $self->{upstreams} }, $upstream;
    $upstream->start if $self->{started};
    return $upstream;
}

# In lane engine-h2, where every path needs a rule: one for / that leads nowhere.
sub rule_for_the_rest {
    my ($self) = @_;
    return () if !$self->is_h2 || $self->has_mod_http2;
    return 'RProxyPass / http://127.0.0.1:' . $self->refused_port . '/';
}

# ---- httpd ----------------------------------------------------------------------------------

sub start {
    my ($self) = @_;
    $self->{started} = 1;
    $_->start for grep { $_->{listener} } @{ $self->{upstreams} };
    $self->{server}->start;
    return $self;
}

# What the server does under its own name: see RProxy::Server.
for my $method (qw(stop graceful graceful_stop wait_exit is_running exit_status signal pid children
    child_pid memory cpu reset_peak descriptors threads error_log access_log wait_log
    wait_access_log log_size tolerate conf_file)) {
    no strict 'refs';
    *$method = sub { my $self = shift; return $self->{server}->$method(@_) };
}

# ---- clients --------------------------------------------------------------------------------

sub _client_tls {
    my ($self, $alpn, $options) = @_;
    return {
        SSL_ca_file => $self->{certs}->ca_file, SSL_hostname => $self->host,
        SSL_verifycn_name => $self->host, SSL_verifycn_scheme => 'http',
        SSL_alpn_protocols => [$alpn], %{ ref $options ? $options : {} },
    };
}

# An HTTP/1.1 client that is connected, over TLS where the lane has it. Options: port, tls => 0 or
# { options of IO::Socket::SSL }, receive_buffer, host_header, timeout.
sub raw_client {
    my ($self, %options) = @_;
    my $tls = delete $options{tls} // $self->{spec}{tls};
    return RProxy::Client->connect(port => $self->{port}, host_header => $self->host,
        tls => $tls ? $self->_client_tls('http/1.1', $tls) : undef, %options);
}

# An HTTP/2 client that is connected over TLS: lanes h2 and engine-h2. Options: port, tls,
# receive_buffer, and those of RProxy::H2.
sub h2_client {
    my ($self, %options) = @_;
    my %connect = map { exists $options{$_} ? ($_ => delete $options{$_}) : () }
        qw(port receive_buffer timeout);
    my $tls = $self->_client_tls('h2', delete $options{tls});
    my $stream = RProxy::Client->connect(port => $self->{port}, tls => $tls, %connect);
    Carp::croak('the server did not choose h2')
        if ($stream->socket->alpn_selected // '') ne 'h2';
    return RProxy::H2->new($stream, host_header => $self->host, %options);
}

# A client of the lane's protocol.
sub client {
    my ($self, %options) = @_;
    return $self->is_h2 ? $self->h2_client(%options) : $self->raw_client(%options);
}

# Begins a request on a connection of its own, in every lane: an RProxy::Exchange. Options: headers,
# host, body, chunked, trailers, expect, stream, timeout; client => { options of client() }.
sub begin {
    my ($self, $method, $target, $options) = @_;
    my %options = %{ $options // {} };
    my %client = %{ delete $options{client} // {} };
    $client{timeout} //= $options{timeout} if defined $options{timeout};
    return $self->client(%client)->begin($method, $target, \%options);
}

sub request {
    my ($self, $method, $target, $options) = @_;
    my $exchange = $self->begin($method, $target, $options);
    my $response = $exchange->response(($options // {})->{timeout});
    $exchange->close;
    return $response;
}

# get('/path', name => value, ...)
sub get {
    my ($self, $target, @headers) = @_;
    return $self->request('GET', $target, { headers => \@headers });
}

# A WebSocket that is open, for lanes with HTTP/1.1 clients.
sub websocket {
    my ($self, $target, %options) = @_;
    return RProxy::WebSocket->client($self->raw_client, $target, %options);
}

# ---- side by side ---------------------------------------------------------------------------

# Runs the sub in a process of its own; ->result waits and returns what it returned, or dies as it
# died. Assertions belong into the test, not into the sub.
sub background {
    my ($self, $code) = @_;
    my $task = RProxy::Task->new($code);
    push @{ $self->{tasks} }, $task;
    return $task;
}

# Runs the sub so many times at once, with 0, 1, ... as its argument; returns all results.
sub parallel {
    my ($self, $count, $code, $seconds) = @_;
    my @tasks = map { my $number = $_; $self->background(sub { return $code->($number) }) }
        0 .. $count - 1;
    return map { scalar $_->result($seconds) } @tasks;
}

# ---- the end --------------------------------------------------------------------------------

# Ends everything and returns what was wrong, as texts. Upstreams go first, so that a thread that
# waits for one does not hold up httpd's end.
sub finish {
    my ($self) = @_;
    return () if $self->{finished}++ || $self->{owner} != $$;
    my @problems = map { $_->errors } @{ $self->{upstreams} };
    $_->kill for @{ $self->{tasks} };
    $_->refuse for @{ $self->{upstreams} };
    $self->{server}->stop;
    push @problems, $self->{server}->findings, map { $_->finish } @{ $self->{beside} };
    RProxy::Ports->release(@{ $self->{ports} });
    return @problems;
}

sub remove_directory {
    my ($self) = @_;
    return if $ENV{RPROXY_KEEP} || $self->{owner} != $$;
    $_->remove_directory for @{ $self->{beside} };
    File::Path::remove_tree($self->{directory});
    return;
}

1;
