-- name: limits
-- Fixes the mode of the transaction, bounds its statements, and says where names are looked for.
-- $1 statement timeout text (ms), $2 schema text, empty for the default
SELECT set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
       CASE WHEN $2 <> '' THEN set_config('search_path', quote_ident($2) || ', public', true) END;

-- name: session
-- A session of the gateway's users, in their own schema. $1 session token text
SELECT u.user_id,
       u.email,
       COALESCE(
           u.display_name,
           u.email
       ) AS display_name,
       s.expires_at,
       COALESCE(
           (SELECT array_agg(r.role_name::text ORDER BY r.role_name)
              FROM auth.user_roles ur
              JOIN auth.roles r ON r.role_id = ur.role_id
             WHERE ur.user_id = u.user_id
               AND (ur.expires_at IS NULL OR ur.expires_at > now())),
           '{}'
       ) AS roles
                        FROM auth.sessions s
  JOIN auth.users u ON u.user_id = s.user_id
 WHERE s.session_token = $1 AND s.is_active AND s.expires_at > now() AND u.is_active
 LIMIT 1;

-- name: last_weather_summary
-- A helper of one fixture of the original. $1 execution id text
SELECT id::text AS id, alert_cities, alert_count, execution_id::text AS execution_id, created_at::text AS created_at
                        FROM public.weather_alert_summary
 WHERE execution_id::text = $1
 ORDER BY created_at DESC
 LIMIT 1;

-- name: playbook_access
-- May the owner of a session do this to a playbook? By the rule of the playbook `check_playbook_access`.
-- $1 session token text, $2 playbook path text, $3 action text: execute, view or modify
SELECT u.user_id, u.email, COALESCE(u.display_name, u.email) AS display_name,
       EXISTS (
           SELECT 1
             FROM auth.user_roles ur
             JOIN auth.playbook_permissions p ON p.role_id = ur.role_id
            WHERE ur.user_id = u.user_id
              AND (ur.expires_at IS NULL OR ur.expires_at > now())
              AND (p.playbook_path = $2 OR $2 LIKE p.allow_pattern)
              AND (p.deny_pattern IS NULL OR $2 NOT LIKE p.deny_pattern)
              AND CASE $3::text WHEN 'execute' THEN p.can_execute WHEN 'view' THEN p.can_view ELSE p.can_modify END
       ) AS allowed
  FROM auth.sessions s
  JOIN auth.users u ON u.user_id = s.user_id
 WHERE s.session_token = $1 AND s.is_active AND s.expires_at > now() AND u.is_active
 LIMIT 1;
