# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The configuration of one private httpd: what every lane needs around the lines of the test.
package RProxy::Config;
use strict;
use warnings;
use RProxy::Platform;

use constant {
    SERVER_NAME   => 'www.example.test',
    ACCESS_FORMAT => '%>s %B %X "%r"',
};

my @BASE_MODULES = qw(unixd log_config logio watchdog version authz_core authz_host);
my %NEEDS = (
    proxy_balancer => [qw(proxy slotmem_shm)], auth_basic => [qw(authn_core authz_user)],
    authn_file => [qw(authn_core authz_user)], authn_anon => [qw(authn_core authz_user)],
    cache_disk => ['cache'], cache_socache => [qw(cache socache_shmcb)],
);

# Few processes: one child serves, the others have room for a graceful restart. Prefork has some
# children from the start, as it adds them once a second.
my %THREADED = (
    StartServers => 1, ServerLimit => 4, ThreadLimit => 64, ThreadsPerChild => 16,
    MaxRequestWorkers => 16, MinSpareThreads => 1, MaxSpareThreads => 16,
);
my %MPM = (
    event   => { %THREADED, AsyncRequestWorkerFactor => 200 },
    worker  => {%THREADED},
    prefork => {
        StartServers => 6, ServerLimit => 32, MaxRequestWorkers => 32,
        MinSpareServers => 4, MaxSpareServers => 32,
    },
);

# Arguments: mpm, tls, h2, mod_http2, server (of the lane), directory, port, certs.
sub new {
    my ($class, %args) = @_;
    return bless {
        modules => [], without => {}, main => [], vhosts => [], listen => [], mpm_settings => {},
        access_format => ACCESS_FORMAT, log_level => 'info', %args,
        server => [@{ $args{server} // [] }],
    }, $class;
}

sub _load {
    my ($self, $loaded, @names) = @_;
    my $text = '';
    for my $name (@names) {
        next if $loaded->{$name}++;
        my @needs = @{ $NEEDS{$name} // [] };
        push @needs, 'proxy' if $name =~ /^(?:proxy|lbmethod)_/ && !@needs;
        $text .= $self->_load($loaded, @needs);
        my $file = RProxy::Platform::module_file($name)
            // die "this httpd has no module '$name' (mod_$name.so)\n";
        $text .= "LoadModule ${name}_module \"$file\"\n" if $file ne '';
    }
    return $text;
}

sub _modules {
    my ($self) = @_;
    my @lane = ("mpm_$self->{mpm}", @BASE_MODULES);
    push @lane, 'ssl' if $self->{tls};
    push @lane, 'http2' if $self->{mod_http2};
    my $text = $self->_load({}, @lane, @{ $self->{modules} });
    for my $ours (RProxy::Platform::our_modules()) {
        my ($name, $file) = @$ours;
        $text .= "LoadModule ${name}_module \"$file\"\n" unless $self->{without}{$name};
    }
    return $text;
}

sub _mpm {
    my ($self) = @_;
    my %settings = (%{ $MPM{ $self->{mpm} } }, %{ $self->{mpm_settings} });
    return join '', map { "$_ $settings{$_}\n" }
        sort { _mpm_order($a) <=> _mpm_order($b) || $a cmp $b }
        grep { defined $settings{$_} } keys %settings;
}

# The limits come before what they limit.
sub _mpm_order { return $_[0] =~ /Limit$/ ? 0 : $_[0] eq 'ThreadsPerChild' ? 1 : 2 }

sub _vhost {
    my ($self, $vhost) = @_;
    my $tls = $vhost->{tls} // $self->{tls};
    my $text = "<VirtualHost 127.0.0.1:$vhost->{port}>\nServerName $vhost->{name}\n";
    if ($tls) {
        my $certificate = $vhost->{certificate}
            // $self->{certs}->server([$vhost->{name}, 'localhost', 'IP:127.0.0.1']);
        $text .= "SSLEngine on\nSSLCertificateFile \"$certificate->{cert}\"\n"
            . "SSLCertificateKeyFile \"$certificate->{key}\"\n";
    }
    $text .= $self->{h2} && $tls ? "Protocols h2 http/1.1\n" : "Protocols http/1.1\n";
    return $text . join('', map { "$_\n" } @{ $vhost->{lines} }) . "</VirtualHost>\n";
}

sub text {
    my ($self) = @_;
    my $dir = $self->{directory};
    my ($user, $group) = RProxy::Platform::unprivileged();
    my $identity = defined $user ? "User $user\nGroup $group\n" : '';
    my $listen = join '', map { "Listen 127.0.0.1:$_\n" } $self->{port}, @{ $self->{listen} };
    my $name = SERVER_NAME;
    my $format = $self->{access_format} =~ s/(["\\])/\\$1/gr;
    my $levels = join ' ', $self->{log_level},
        map { "$_->[0]:debug" } grep { !$self->{without}{ $_->[0] } }
        RProxy::Platform::our_modules();
    my $main = { port => $self->{port}, name => $name, lines => $self->{main} };
    return <<"EOT" . join '', map { $self->_vhost($_) } $main, @{ $self->{vhosts} };
ServerRoot "$dir"
PidFile "$dir/run/httpd.pid"
DefaultRuntimeDir "$dir/run"
@{[ $self->_modules ]}${identity}${listen}ServerName $name
ErrorLog "$dir/logs/error_log"
LogLevel $levels
LogFormat "$format" test
CustomLog "$dir/logs/access_log" test
@{[ $self->_mpm ]}DocumentRoot "$dir/htdocs"
<Directory />
    AllowOverride None
    Require all denied
</Directory>
<Directory "$dir/htdocs">
    AllowOverride All
    Require all granted
</Directory>
@{[ join "\n", @{ $self->{server} } ]}
EOT
}

1;
